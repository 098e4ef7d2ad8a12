package plant

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// bitsPerChar are start, eight data, parity and stop bits, or two stop bits:
// a character of Modbus RTU always has eleven.
const bitsPerChar = 11

// rtuBus is a serial line on a pseudo-terminal. The kernel moves bytes at
// once, so the line keeps its own time: each character of a request is taken
// to arrive one character time after the one before, and an answer is handed
// over no faster than a line would carry it.
type rtuBus struct {
	p       *Plant
	name    string
	baud    int
	parity  string
	devices units
	order   []*device

	mu     sync.Mutex
	pty    *ptyPair // nil while cut
	path   string   // symbolic link, stable
	closed bool
	told   bool // that it does not come back
	wg     sync.WaitGroup
}

func (b *rtuBus) label() string { return b.name }

func (b *rtuBus) describe() Bus {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Bus{Name: b.name, Port: b.path, Baud: b.baud, Parity: b.parity, Devices: describe(b.order)}
}

// charTime is how long one character takes on the line.
func (b *rtuBus) charTime() time.Duration {
	return bitsPerChar * time.Second / time.Duration(b.baud)
}

// silence is the pause that ends a frame: 3.5 characters, fixed above 19200
// baud (Modbus over serial line V1.02, 2.5.1.1).
func (b *rtuBus) silence() time.Duration {
	if b.baud > 19200 {
		return 1750 * time.Microsecond
	}
	return b.charTime() * 7 / 2
}

func (b *rtuBus) open() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.path = filepath.Join(b.p.dir, b.name)
	return b.connect()
}

// connect makes the pseudo-terminal and serves it. b.mu is held.
func (b *rtuBus) connect() error {
	pty, err := openPTY(b.baud)
	if err != nil {
		return fmt.Errorf("bus %s: open a pseudo-terminal: %w", b.name, err)
	}
	if err := link(pty.path, b.path); err != nil {
		pty.close()
		return fmt.Errorf("bus %s: name the pseudo-terminal: %w", b.name, err)
	}
	b.pty = pty
	b.wg.Go(func() { b.talk(pty) })
	return nil
}

// link puts a symbolic link at path, in place of an older one but of nothing else.
func link(target, path string) error {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSymlink == 0 {
			return fmt.Errorf("%s is in the way; remove it or choose another directory", path)
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.Symlink(target, path)
}

func (b *rtuBus) cut(cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed || cut == (b.pty == nil):
	case cut:
		b.disconnect()
	default:
		if err := b.connect(); err != nil {
			if !b.told {
				b.p.log.Error("bus does not come back yet", "bus", b.name, "error", err)
			}
			b.told = true
			return
		}
		b.told = false
	}
}

// disconnect takes the pseudo-terminal away. b.mu is held.
func (b *rtuBus) disconnect() {
	if b.pty != nil {
		if target, err := os.Readlink(b.path); err == nil && target == b.pty.path {
			_ = os.Remove(b.path) // a dangling link would only look like a port
		}
		b.pty.close()
		b.pty = nil
	}
}

func (b *rtuBus) close() {
	b.mu.Lock()
	b.closed = true
	b.disconnect()
	b.mu.Unlock()
	b.wg.Wait()
}

// pending is an answer that a delayed device will give later.
type pending struct {
	due time.Time
	d   *device
	pdu []byte
	m   manners
}

// talk serves the line until its pseudo-terminal is closed.
func (b *rtuBus) talk(pty *ptyPair) {
	var (
		buf     [512]byte
		frame   []byte
		arrived time.Time // of the frame's last character, by the line's clock
		late    []pending
	)
	for {
		wake := time.Now().Add(time.Second)
		if len(frame) > 0 {
			wake = arrived.Add(b.silence())
		}
		for _, l := range late {
			if l.due.Before(wake) {
				wake = l.due
			}
		}
		n, err := pty.read(buf[:], wake)
		now := time.Now()
		if n > 0 {
			if arrived.Before(now) {
				arrived = now
			}
			arrived = arrived.Add(time.Duration(n) * b.charTime())
			if frame = append(frame, buf[:n]...); len(frame) > 256 {
				frame = frame[:0] // no frame is so long: noise
			}
			continue
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return // closed
		}
		if len(frame) > 0 && !now.Before(arrived.Add(b.silence())) {
			late = b.request(pty, frame, late)
			frame = frame[:0]
		} else if len(frame) == 0 {
			pty.release()
		}
		late = slices.DeleteFunc(late, func(l pending) bool {
			if time.Now().Before(l.due) {
				return false
			}
			b.reply(pty, l)
			return true
		})
	}
}

// request handles one frame: it is answered at once, put off, or not for us.
func (b *rtuBus) request(pty *ptyPair, frame []byte, late []pending) []pending {
	if pty.speed() != b.baud {
		return late // at another speed the line carries noise
	}
	pty.release()
	n := len(frame) - 2
	if n < 2 || checksum(frame[:n]) != uint16(frame[n])|uint16(frame[n+1])<<8 {
		return late
	}
	b.p.observe(b.name, frame[0], frame[1:n]) // whoever is meant: a broadcast writes too
	d := b.devices.device(frame[0], frame[1:n])
	if d == nil {
		return late
	}
	m := b.p.manners(d)
	if m.silent {
		return late
	}
	l := pending{due: time.Now().Add(m.delay), d: d, pdu: slices.Clone(frame[1:n]), m: m}
	if m.delay > 0 {
		return append(late, l)
	}
	b.reply(pty, l)
	return late
}

func (b *rtuBus) reply(pty *ptyPair, l pending) {
	frame := func(pdu []byte) []byte {
		out := append([]byte{l.d.unit}, pdu...)
		sum := checksum(out)
		return append(out, byte(sum), byte(sum>>8))
	}
	b.p.serve(l.d, l.pdu, l.m, frame, garbleBytes, func(out []byte) bool { return b.send(pty, out) })
}

// send hands a frame over at the line's pace: at every moment no more of it is
// there than a line would have carried.
func (b *rtuBus) send(pty *ptyPair, out []byte) bool {
	begin, char := time.Now(), b.charTime()
	for sent := 0; sent < len(out); {
		due := min(len(out), int(time.Since(begin)/char))
		if due <= sent {
			if !pty.wait(time.Until(begin.Add(time.Duration(sent+1) * char))) {
				return false
			}
			continue
		}
		if pty.write(out[sent:due]) != nil {
			return false
		}
		sent = due
	}
	return true
}

// garbleBytes damages one to three bytes after the unit; the check sum, made
// before, tells.
func garbleBytes(rng *rand.Rand, out []byte) {
	for range 1 + rng.IntN(3) {
		out[1+rng.IntN(len(out)-1)] ^= byte(1 + rng.IntN(255))
	}
}

// checksum is the CRC of Modbus RTU (polynomial 0xA001 reflected, start
// 0xFFFF), bit by bit as the specification draws it.
func checksum(b []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xA001
			} else {
				crc >>= 1
			}
		}
	}
	return crc
}
