package drivertest_test

import (
	"context"
	"net"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"luquan/drivers/drivertest"
	"luquan/drivers/modbus/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRecordAndPlayback: what was recorded from a slave is read again without
// it, byte for byte, on every transport.
func TestRecordAndPlayback(t *testing.T) {
	for _, tcp := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			read := func(line net.Conn) (out [][]byte) {
				b, err := bus.DialTCP(bus.TCPOptions{Address: "plc", RTU: !tcp,
					Dial: func(context.Context, string, string) (net.Conn, error) { return line, nil }})
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				u := b.Reader(4, bus.Timing{Response: 200 * time.Millisecond})
				for _, address := range []uint16{1, 70, 999} {
					data, err := u.ReadInputRegisters(context.Background(), address, 3)
					if (err != nil) != (address == 999) {
						t.Fatal(address, err)
					}
					out = append(out, data)
				}
				return out
			}
			near, far := drivertest.Pair()
			s := &drivertest.Slave{Value: func(_, _ byte, a uint16) (uint16, bool) { return a * 3, a < 500 }}
			var serving sync.WaitGroup
			serving.Go(func() {
				if tcp {
					s.ServeTCP(far)
				} else {
					s.ServeRTU(far)
				}
			})
			rec := drivertest.Record(near)
			want := read(rec)
			serving.Wait()

			xs, err := drivertest.ParseExchanges("# a comment\n" + drivertest.FormatExchanges(rec.Exchanges()))
			if err != nil || !reflect.DeepEqual(xs, rec.Exchanges()) {
				t.Fatalf("text form: %v, %v", xs, err)
			}
			if got := read(drivertest.Playback(t, xs, tcp)); !reflect.DeepEqual(got, want) {
				t.Errorf("played back % x, recorded % x", got, want)
			}
		})
	}
	for _, bad := range []string{"? 01", "< 01", "> 0"} {
		if _, err := drivertest.ParseExchanges(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

// TestSlaveRefusesWrites: a request that does not read ends the slave with an error.
func TestSlaveRefusesWrites(t *testing.T) {
	near, far := drivertest.Pair()
	defer near.Close()
	near.Write(drivertest.AppendCRC([]byte{1, 6, 0, 0, 0, 1}))
	if err := new(drivertest.Slave).ServeRTU(far); err == nil {
		t.Error("a write was served")
	}
	if got := drivertest.CRC([]byte("123456789")); got != 0x4B37 { // the catalogue's check value
		t.Errorf("CRC %#x", got)
	}
}

// FuzzParseExchanges: any text is exchanges or an error, and exchanges written
// down are read back the same.
func FuzzParseExchanges(f *testing.F) {
	f.Add("# a comment\n> 01 03 00 01 00 01\n< 01 03 02\n< 00 09\n")
	f.Add("< 01")
	f.Add(">\n\n> 0")
	f.Fuzz(func(t *testing.T, text string) {
		xs, err := drivertest.ParseExchanges(text)
		if err != nil {
			return
		}
		again, err := drivertest.ParseExchanges(drivertest.FormatExchanges(xs))
		if err != nil || len(again) != len(xs) {
			t.Fatalf("%v became %v, %v", xs, again, err)
		}
		for i := range xs {
			if string(xs[i].Request) != string(again[i].Request) || string(xs[i].Answer) != string(again[i].Answer) {
				t.Fatalf("%v became %v", xs[i], again[i])
			}
		}
	})
}
