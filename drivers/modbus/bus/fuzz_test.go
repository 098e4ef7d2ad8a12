package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"luquan/drivers/drivertest"
)

func FuzzParseRTU(f *testing.F) {
	f.Add(byte(3), byte(1), uint16(2), []byte{3, 1, 1, 0xFF, 0, 0})
	f.Add(byte(3), byte(3), uint16(1), drivertest.AppendCRC([]byte{3, 3, 2, 0, 9}))
	f.Add(byte(3), byte(4), uint16(125), drivertest.AppendCRC([]byte{3, 0x84, 2}))
	f.Fuzz(func(t *testing.T, unit, fc byte, q uint16, b []byte) {
		r := request{unit: unit, function: 1 + fc%4, quantity: 1 + q%125, adu: make([]byte, 8)}
		v, n, why := parseRTU(r, b)
		switch v {
		case answer:
			if b[0] != unit || n > len(b) || drivertest.CRC(b[:n]) != 0 || (b[1] == r.function) != (n == 5+r.dataBytes() && b[1] < 0x80) {
				t.Fatalf("accepted % x for %+v", b, r)
			}
		case foreign:
			if n < 5 || n > len(b) || drivertest.CRC(b[:n]) != 0 {
				t.Fatalf("foreign % x", b)
			}
		case damaged:
			if why == "" {
				t.Fatal("damaged without a word why")
			}
		}
		soundFrame(b)
	})
}

func FuzzParseMBAP(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 5, 1, 3, 2, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := request{unit: 1, function: 3, quantity: 1, adu: []byte{0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1}}
		v, n, _ := parseMBAP(b)
		if v != answer {
			return
		}
		if n > len(b) || n < 9 {
			t.Fatalf("answer of %d in %d bytes", n, len(b))
		}
		if checkPDU(r, b[6], b[mbapHeader:n]) == "" && b[7] == 3 && n != 11 {
			t.Fatalf("accepted % x", b)
		}
	})
}

// chunks is a stream that receives what a fuzzer thought of, and then nothing.
type chunks [][]byte

func (c *chunks) Read(b []byte) (int, error) {
	if len(*c) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, (*c)[0])
	if (*c)[0] = (*c)[0][n:]; len((*c)[0]) == 0 {
		*c = (*c)[1:]
	}
	return n, nil
}
func (c *chunks) Write(b []byte) (int, error)      { return len(b), nil }
func (c *chunks) Close() error                     { return nil }
func (c *chunks) SetReadDeadline(time.Time) error  { return nil }
func (c *chunks) SetWriteDeadline(time.Time) error { return nil }
func (c *chunks) flush([]byte) (int, error)        { return 0, nil }

// split cuts b at two places.
func split(b []byte, i, k byte) (c chunks) {
	x, y := int(i)%(len(b)+1), int(k)%(len(b)+1)
	for _, part := range [][]byte{b[:min(x, y)], b[min(x, y):max(x, y)], b[max(x, y):]} {
		if len(part) > 0 {
			c = append(c, part)
		}
	}
	return c
}

// FuzzReceiveRTU: whatever comes, in whatever parts, and whatever is owed, an
// answer is a sound frame among it that has the form of the request.
func FuzzReceiveRTU(f *testing.F) {
	right := drivertest.AppendCRC([]byte{17, 3, 4, 0, 1, 0, 2})
	other := drivertest.AppendCRC([]byte{17, 3, 2, 0, 9})
	f.Add(right, byte(3), byte(4), false, byte(0))
	f.Add(append(other, right...), byte(1), byte(9), false, byte(1))
	f.Add(append(right, right...), byte(0), byte(0), false, byte(1))
	f.Add(append(drivertest.AppendCRC([]byte{17, 3, 0, 1, 0, 2}), right...), byte(0), byte(8), true, byte(2))
	f.Add(drivertest.AppendCRC([]byte{17, 0x83, 2}), byte(2), byte(3), false, byte(3))
	f.Fuzz(func(t *testing.T, b []byte, i, k byte, echo bool, owed byte) {
		x := &exchange{request: request{unit: 17, function: 3, address: 1, quantity: 2}, timing: Timing{Response: time.Second}}
		x.adu = drivertest.AppendCRC([]byte{17, 3, 0, 1, 0, 2})
		r := &rtu{echo: echo, trace: new(trace)}
		for n := range owed % 4 {
			r.owed[17].add(form{3, 2 + 2*int(n)}, time.Now(), time.Second)
		}
		c := split(b, i, k)
		frame, err := r.receive(context.Background(), &c, x, time.Now())
		switch {
		case (frame == nil) != (err != nil):
			t.Fatalf("% x and %v", frame, err)
		case err != nil && (err.Kind != Garbled && err.Kind != NoReply || err.Err.Error() == ""):
			t.Fatalf("error %+v", err)
		case frame == nil:
		case !bytes.Contains(b, frame) || drivertest.CRC(frame) != 0 || frame[0] != 17:
			t.Fatalf("accepted % x from % x", frame, b)
		case !(frame[1] == 3 && len(frame) == 9 && frame[2] == 4) && !(frame[1] == 0x83 && len(frame) == 5):
			t.Fatalf("accepted % x", frame)
		}
	})
}

// FuzzDeliver: whatever comes on a Modbus TCP connection, the answer to a
// request in flight is a whole frame of its transaction, unit, function and
// length, and none other; what becomes of the requests does not depend on the
// parts it comes in, so long as the framing holds.
func FuzzDeliver(f *testing.F) {
	f.Add([]byte{7, 7, 0, 0, 0, 5, 17, 3, 2, 0, 9}, byte(3), byte(7))
	f.Add([]byte{8, 8, 0, 0, 0, 5, 17, 1, 2, 0, 9, 7, 7, 0, 0, 0, 3, 17, 0x83, 2}, byte(12), byte(4))
	f.Add([]byte{7, 7, 0, 0, 0, 6, 17, 3, 0, 1, 0, 1}, byte(0), byte(0))
	f.Add([]byte{9, 9, 0, 0, 0, 3, 17, 3, 2, 7, 7, 0, 1, 0, 5}, byte(1), byte(1))
	f.Fuzz(func(t *testing.T, b []byte, i, k byte) {
		run := func(parts chunks) []*call {
			w := &wire{trace: new(trace)}
			all := []*call{
				{request: request{unit: 17, function: 3, quantity: 1, adu: []byte{7, 7, 0, 0, 0, 6, 17, 3, 0, 1, 0, 1}}, sent: true},
				{request: request{unit: 17, function: 1, quantity: 9, adu: []byte{8, 8, 0, 0, 0, 6, 17, 1, 0, 1, 0, 9}}, sent: true},
			}
			w.calls = append(w.calls, all...)
			for _, p := range parts {
				if w.broken == nil {
					w.buf = append(w.buf, p...)
					w.deliver()
				}
			}
			return all
		}
		whole := run(split(b, 0, 0))
		for n, c := range run(split(b, i, k)) {
			if c.over != (c.frame != nil || c.err != nil) || c.frame != nil && c.err != nil {
				t.Fatalf("%+v", c)
			}
			if d := whole[n]; d.frame != nil && c.frame != nil && !bytes.Equal(d.frame, c.frame) {
				t.Fatalf("% x in one part, % x in several", d.frame, c.frame)
			}
			if c.frame == nil {
				continue
			}
			size := 6 + int(binary.BigEndian.Uint16(c.frame[4:]))
			data := c.frame[7] == c.function && size == 11 && c.frame[8] == 2
			refusal := c.frame[7] == c.function|0x80 && size == 9
			if !bytes.Contains(b, c.frame) || len(c.frame) != size || c.id() != binary.BigEndian.Uint16(c.frame) ||
				c.frame[2]|c.frame[3] != 0 || c.frame[6] != 17 || !data && !refusal {
				t.Fatalf("accepted % x for % x", c.frame, c.adu)
			}
		}
	})
}

// FuzzDebts: of what a unit owes, no more than mostDebts are kept, a probe always
// has a form of its own, and an answer never settles what was asked after it.
func FuzzDebts(f *testing.F) {
	f.Add([]byte{0x34, 0x12, 0x81, 3}, byte(3), uint16(4))
	f.Add(bytes.Repeat([]byte{0x0F, 0x1F, 0x2F}, 9), byte(1), uint16(8))
	f.Fuzz(func(t *testing.T, ops []byte, function byte, quantity uint16) {
		now := time.Now()
		r := request{unit: 17, function: 1 + function%4, quantity: 1 + quantity%125}
		var d debts
		for n, op := range ops {
			fm := form{r.function, int(op & 0x3F)}
			if op&0x80 == 0 {
				d.add(fm, now.Add(time.Duration(n)), time.Second)
				continue
			}
			before := append(debts(nil), d...)
			if _, settled := d.settle([]byte{17, fm.function, byte(fm.bytes)}); settled != before.owes(fm) {
				t.Fatalf("settled %v, of %v", settled, before)
			}
			for i, x := range d { // what is left are the last ones, in their order
				if x != before[len(before)-len(d)+i] {
					t.Fatalf("%v became %v", before, d)
				}
			}
		}
		p := d.probe(r)
		if len(d) > mostDebts || d.owes(p.form()) || p.form() == r.form() || p.address != r.address || !crcOK(p.adu) {
			t.Fatalf("%d owed; probe %+v for %+v", len(d), p, r)
		}
	})
}
