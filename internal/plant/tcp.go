package plant

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// tcpBus is a Modbus TCP endpoint: one device, or a gateway with several units.
type tcpBus struct {
	p       *Plant
	name    string
	addr    string // to listen at; the port is fixed once it was opened
	devices units
	order   []*device

	mu     sync.Mutex
	ln     net.Listener
	conns  map[net.Conn]bool
	isCut  bool
	told   bool // that it does not come back
	closed bool
	wg     sync.WaitGroup
}

func (b *tcpBus) label() string { return b.name }

func (b *tcpBus) describe() Bus {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := Bus{Name: b.name, Devices: describe(b.order)}
	if b.conns != nil {
		d.Addr = b.addr
	}
	return d
}

func (b *tcpBus) open() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // the address is told once
		}
		return fmt.Errorf("bus %s cannot listen at %s: %w; choose another port or stop what has it", b.name, b.addr, err)
	}
	b.addr, b.conns = ln.Addr().String(), map[net.Conn]bool{}
	b.listen(ln)
	return nil
}

// listen serves ln. b.mu is held.
func (b *tcpBus) listen(ln net.Listener) {
	b.ln = ln
	b.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return // closed: cut or stopped
			}
			b.mu.Lock()
			if b.ln != ln {
				b.mu.Unlock()
				c.Close()
				return
			}
			b.conns[c] = true
			b.wg.Go(func() { b.talk(c) })
			b.mu.Unlock()
		}
	})
}

func (b *tcpBus) cut(cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || cut == b.isCut {
		return
	}
	if cut {
		b.isCut = true
		b.drop()
		return
	}
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		if !b.told {
			b.p.log.Error("bus does not come back yet", "bus", b.name, "error", err)
		}
		b.told = true
		return
	}
	b.isCut, b.told = false, false
	b.listen(ln)
}

// drop ends the listener and every connection. b.mu is held.
func (b *tcpBus) drop() {
	if b.ln != nil {
		b.ln.Close()
		b.ln = nil
	}
	for c := range b.conns {
		c.Close()
	}
}

func (b *tcpBus) close() {
	b.mu.Lock()
	b.closed = true
	b.drop()
	b.mu.Unlock()
	b.wg.Wait()
}

// talk answers the requests of one connection until it ends.
func (b *tcpBus) talk(c net.Conn) {
	gone := make(chan struct{})
	var late sync.WaitGroup
	defer func() {
		close(gone)
		c.Close()
		late.Wait()
		b.mu.Lock()
		delete(b.conns, c)
		b.mu.Unlock()
	}()
	for {
		var head [7]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[4:])) - 1
		if binary.BigEndian.Uint16(head[2:]) != 0 || n < 1 || n > 253 {
			return // not Modbus: a server closes
		}
		pdu := make([]byte, n)
		if _, err := io.ReadFull(c, pdu); err != nil {
			return
		}
		frame := func(pdu []byte) []byte {
			out := append([]byte{}, head[:]...)
			binary.BigEndian.PutUint16(out[4:], uint16(1+len(pdu)))
			return append(out, pdu...)
		}
		send := func(out []byte) bool {
			_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second)) // a closed connection tells at Write
			_, err := c.Write(out)
			return err == nil
		}
		b.p.observe(b.name, head[6], pdu)
		d := b.devices.device(head[6], pdu)
		if d == nil {
			send(frame([]byte{pdu[0] | 0x80, targetSilent}))
			continue
		}
		m := b.p.manners(d)
		if m.silent {
			continue
		}
		if m.delay == 0 {
			b.p.serve(d, pdu, m, frame, garbleHeader, send)
			continue
		}
		late.Go(func() {
			t := time.NewTimer(m.delay)
			defer t.Stop()
			select {
			case <-gone:
			case <-t.C:
				b.p.serve(d, pdu, m, frame, garbleHeader, send)
			}
		})
	}
}

// garbleHeader damages the protocol identifier, which must be 0: over TCP
// there is no check sum, and a changed value would be a lie nobody can see.
func garbleHeader(rng *rand.Rand, out []byte) { out[2+rng.IntN(2)] ^= byte(1 + rng.IntN(255)) }

func describe(ds []*device) []Device {
	list := make([]Device, len(ds))
	for i, d := range ds {
		list[i] = Device{Name: d.name, Profile: d.profile.ID, Unit: int(d.unit)}
	}
	return list
}
