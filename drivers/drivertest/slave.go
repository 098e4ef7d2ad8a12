package drivertest

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Step is one thing a Slave does in answer to a request: wait, then send.
type Step struct {
	Wait  time.Duration
	Bytes []byte
}

// Slave is a Modbus slave that follows a script. Its zero value answers every
// unit at once, and every register holds its own address. Set the fields
// before it serves.
type Slave struct {
	// Value returns what a register, or bit 0 of a coil, holds; ok false is
	// answered with exception 2. function is that of the request, 1 to 4.
	Value func(unit, function byte, address uint16) (v uint16, ok bool)
	// Script turns the right answer to the nth request (from 1) into what is
	// sent; nothing for no steps. The steps run beside the next requests.
	Script func(n int, request, answer []byte) []Step
	// Char is how long a character takes on the line: a request is taken for
	// read, and an answer sent, no faster. 0 means no pacing.
	Char time.Duration

	mu       sync.Mutex
	requests [][]byte
}

// Requests returns the requests received so far, as they came.
func (s *Slave) Requests() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]byte(nil), s.requests...)
}

// ServeRTU answers RTU requests until the line ends, and waits for its answers
// under way. A request that is not one of the four reads ends it with an error.
func (s *Slave) ServeRTU(line io.ReadWriter) error {
	return s.serve(line, false, func() ([]byte, error) {
		req := make([]byte, 8)
		_, err := io.ReadFull(line, req)
		if err == nil && CRC(req[:6]) != binary.LittleEndian.Uint16(req[6:]) {
			err = fmt.Errorf("drivertest: request % x has a wrong CRC", req)
		}
		return req, err
	}, func(req []byte) []byte {
		return AppendCRC(s.pdu(req[:6]))
	})
}

// ServeTCP answers Modbus TCP requests until the connection ends.
func (s *Slave) ServeTCP(line io.ReadWriter) error {
	return s.serve(line, true, func() ([]byte, error) {
		req := make([]byte, 12)
		_, err := io.ReadFull(line, req)
		if err == nil && (binary.BigEndian.Uint16(req[2:]) != 0 || binary.BigEndian.Uint16(req[4:]) != 6) {
			err = fmt.Errorf("drivertest: request % x has a wrong header", req)
		}
		return req, err
	}, func(req []byte) []byte {
		body := s.pdu(req[6:])
		out := append([]byte(nil), req[:4]...)
		out = binary.BigEndian.AppendUint16(out, uint16(len(body)))
		return append(out, body...)
	})
}

func (s *Slave) serve(line io.Writer, whole bool, next func() ([]byte, error), reply func([]byte) []byte) error {
	var underWay sync.WaitGroup
	defer underWay.Wait()
	sending := make(chan struct{}, 1) // not a mutex: synctest's clock must run on while one waits
	for n := 1; ; n++ {
		req, err := next()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return err
		}
		s.mu.Lock()
		s.requests = append(s.requests, req)
		s.mu.Unlock()
		ans := reply(req)
		if ans == nil {
			return fmt.Errorf("drivertest: request % x does not read", req)
		}
		steps := []Step{{Bytes: ans}}
		if s.Script != nil {
			steps = s.Script(n, req, ans)
		}
		underWay.Go(func() {
			at := time.Now() // one schedule, so that oversleeping does not add up
			sleep := func(d time.Duration) {
				at = at.Add(d)
				time.Sleep(time.Until(at))
			}
			sleep(time.Duration(len(req)) * s.Char)
			for i, st := range steps {
				sleep(st.Wait)
				if i == 0 && whole { // what has begun is sent to its end
					sending <- struct{}{}
					defer func() { <-sending }()
				}
				for b := range slices.Chunk(st.Bytes, burst) {
					sleep(time.Duration(len(b)) * s.Char)
					line.Write(b) // a line that is gone is noticed by next
				}
			}
		})
	}
}

// pdu answers unit, function, address and quantity with unit and PDU; nil
// when the function does not read.
func (s *Slave) pdu(q []byte) []byte {
	unit, function := q[0], q[1]
	address, count := binary.BigEndian.Uint16(q[2:]), int(binary.BigEndian.Uint16(q[4:]))
	if function < 1 || function > 4 {
		return nil
	}
	value := s.Value
	if value == nil {
		value = func(_, _ byte, a uint16) (uint16, bool) { return a, true }
	}
	var data []byte
	for i := range count {
		v, ok := value(unit, function, address+uint16(i))
		switch {
		case !ok:
			return []byte{unit, function | 0x80, 2}
		case function >= 3:
			data = binary.BigEndian.AppendUint16(data, v)
		default:
			if i%8 == 0 {
				data = append(data, 0)
			}
			data[i/8] |= byte(v&1) << (i % 8)
		}
	}
	return append([]byte{unit, function, byte(len(data))}, data...)
}

// burst is how many bytes are delivered at once, as USB adapters do.
const burst = 62

// CRC is CRC-16/MODBUS, bit by bit.
func CRC(b []byte) uint16 {
	c := uint16(0xFFFF)
	for _, x := range b {
		c ^= uint16(x)
		for range 8 {
			odd := c & 1
			c >>= 1
			if odd != 0 {
				c ^= 0xA001
			}
		}
	}
	return c
}

// AppendCRC returns b with its CRC after it; nil for nil.
func AppendCRC(b []byte) []byte {
	if b == nil {
		return nil
	}
	return binary.LittleEndian.AppendUint16(b[:len(b):len(b)], CRC(b))
}
