package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"luquan/gateway/edge/buffer"
	"luquan/gateway/edge/uplink"
)

// BenchmarkWireBytes counts what a board of 10,000 floats of three decimals a
// second (40 devices of 250 points, every one changing each second, seed 5)
// sends and gets, in steady state: MQTT with its headers, acknowledgements and
// committed, without TLS. Each iteration is one second.
//
//	go test -run xxx -bench WireBytes -benchtime 30x -count 3 ./internal/e2e
//
// spread reads the devices evenly over the second, at-once all in its first
// instant; linger is uplink.linger.
func BenchmarkWireBytes(b *testing.B) {
	for _, c := range []struct {
		name   string
		burst  int
		linger time.Duration
	}{{"spread", 1, 0}, {"at-once", 40, 0}, {"spread-linger-1s", 1, time.Second}} {
		b.Run(c.name, func(b *testing.B) {
			if b.N < 5 {
				return // the testing package's first try
			}
			addr, stop := startListener(b, order{Commit: 500 * time.Millisecond})
			line := newWAN(b, addr, 0, 0)
			board := startBoard(b, b.TempDir(), line.addr(), newLoad(40, 250, 5), func(c2 *uplink.Config) { c2.Linger = c.linger })
			poll := func(d time.Duration) {
				end := time.Now().Add(d)
				for next := time.Now(); next.Before(end); next = next.Add(time.Duration(c.burst) * 25 * time.Millisecond) {
					time.Sleep(time.Until(next))
					board.append(c.burst)
				}
			}
			poll(2*time.Second + c.linger)
			up, down, points := line.up.bytes.Load(), line.down.bytes.Load(), board.load.next
			poll(time.Duration(b.N) * time.Second)
			up, down, points = line.up.bytes.Load()-up, line.down.bytes.Load()-down, (board.load.next-points)*250
			board.stop()
			stop()
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(up)/float64(points), "B-up/point")
			b.ReportMetric(float64(up+down)/float64(points), "B/point")
		})
	}
}

// BenchmarkSIM counts what a small board costs on a metered line: 100 points (5
// devices of 20) every 10 s, all changing, linger 30s, zstd, TLS 1.3 with a
// certificate for each end, and the whole hubd at the other end with its
// committed and its beats of the clock. Each iteration is one second of real
// time after the first half minute; the month is 30 days of the same, to which
// 300 connections (ten a day) are added, measured as the first half minute.
//
//	go test -run xxx -bench SIM -benchtime 900x -timeout 30m ./internal/e2e
//
// MB are of the TCP payload, TLS included. With-IP adds 40 bytes for each
// segment of it (at most 1400 bytes) and as much for an acknowledgement of each.
func BenchmarkSIM(b *testing.B) {
	if b.N < 5 {
		return
	}
	server, client := certificates(b)
	line := newWAN(b, terminateTLS(b, startHub(b), server), 0, 0)
	const linger = 30 * time.Second
	board := startBoard(b, b.TempDir(), line.addr(), newLoad(5, 20, 5), func(c *uplink.Config) {
		c.Linger, c.Dial = linger, boardDial("mqtts://"+line.addr(), client)
	})
	next := time.Now()
	poll := func(d time.Duration) {
		for end := time.Now().Add(d); next.Before(end); next = next.Add(2 * time.Second) { // one of the five each 2 s
			time.Sleep(time.Until(next))
			board.append(1)
		}
	}
	count := func() (bytes, packets float64) {
		return float64(line.up.bytes.Load() + line.down.bytes.Load()), float64(line.up.packets.Load() + line.down.packets.Load())
	}
	poll(linger)
	firstBytes, firstPackets := count()
	up := line.up.bytes.Load()
	poll(time.Duration(b.N) * time.Second)
	bytes, packets := count()
	bytes, packets, up = bytes-firstBytes, packets-firstPackets, line.up.bytes.Load()-up
	board.stop()
	const month, connections = 30 * 86400, 300
	scale := month / float64(b.N)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric((bytes*scale+connections*firstBytes)/1e6, "MB/month")
	b.ReportMetric(float64(up)*scale/1e6, "MB-up/month")
	b.ReportMetric(((bytes+80*packets)*scale+connections*(firstBytes+80*firstPackets))/1e6, "MB-with-IP/month")
	b.ReportMetric(firstBytes/1e3, "kB/connection")
}

// append reads so many devices now.
func (b *benchBoard) append(n int) {
	b.t.Helper()
	for range n {
		if _, err := b.queue.Append(buffer.Reading, b.load.stored(time.Now())); err != nil {
			b.t.Fatal(err)
		}
	}
}

// certificates makes an authority and a certificate of each end.
func certificates(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	leaf := func(serial int64) tls.Certificate {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, ca, key.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	return &tls.Config{Certificates: []tls.Certificate{leaf(2)}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert},
		&tls.Config{Certificates: []tls.Certificate{leaf(3)}, RootCAs: pool}
}

// terminateTLS listens with TLS and passes what comes on to addr.
func terminateTLS(t testing.TB, addr string, config *tls.Config) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	var join sync.WaitGroup
	join.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				in.Close()
				continue
			}
			join.Go(func() { _, _ = io.Copy(out, in); out.Close() })
			join.Go(func() { _, _ = io.Copy(in, out); in.Close() })
		}
	})
	t.Cleanup(func() { ln.Close(); join.Wait() })
	return ln.Addr().String()
}
