package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"luquan/drivers/drivertest"
)

// faultSeed is the seed of the fault suite: LUQUAN_SEED repeats a run.
func faultSeed(t *testing.T) uint64 {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("LUQUAN_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("LUQUAN_SEED=%d", seed)
	return seed
}

// lane is a way to a device, as the suite sets it up.
type lane struct {
	name     string
	mode     string // of newRig
	echo     bool
	inFlight int
}

var lanes = []lane{
	{"rtu", "rtu", false, 1},
	{"rtu with echo", "rtu", true, 1},
	{"tcp", "tcp", false, 1},
	{"tcp four in flight", "tcp", false, 4},
	{"rtu over tcp", "rtutcp", false, 1},
}

func (l lane) tcp() bool { return l.mode == "tcp" }

// question is what a call asks for.
type question struct {
	unit, function    byte
	address, quantity uint16
}

// told is a request the plant has answered, and what befell the answer.
type told struct {
	question
	serial uint64
	at     time.Time
	fault  string // "" when the answer went out untouched
}

// plant is the far end. What it answers holds nothing but the serial number of
// the request, in every register: so a value tells which request of the last
// 65,536 it was the answer to, and by it the unit, table, address, quantity and
// moment. An answer to another unit, table, register or time, even an older one
// to the very same request, is another value.
type plant struct {
	*rig
	lane lane
	rnd  *rand.Rand // guarded by mu
	last question   // of whoever asks

	mu     sync.Mutex // guards everything below
	serial uint64
	ring   [1 << 16]told
	free   time.Time // of a line: a device answers in the order it was asked
	quiet  time.Time // everything sent so far has arrived
	plan   func() *fault
	hit    map[question]*fault // what befell the answers of this round
	again  []byte              // sent once more before the next answer,
	onConn int                 // if that is on the same connection

	away   atomic.Int64 // how long nobody connects after the cut under way
	counts map[string]int
	alive  map[*fault]time.Time // what may still be felt, and when the last of it was sent
}

func newPlant(t *testing.T, l lane, rnd *rand.Rand) *plant {
	p := &plant{rig: newRig(t, l.mode, l.echo), lane: l, rnd: rnd, hit: map[question]*fault{}, counts: map[string]int{}, alive: map[*fault]time.Time{}}
	p.tap = func(c net.Conn) net.Conn { return &tap{Conn: c, p: p} }
	p.slave.Script = func(_ int, req, ans []byte) []drivertest.Step { return p.answer(req) }
	return p
}

// words are the registers of the answer to the request of that number.
func words(serial uint64, n int) []uint16 {
	w := make([]uint16, n)
	for i := range w {
		w[i] = uint16(serial) + uint16(i)*0x3C6F
	}
	return w
}

// data is what the answer to q carries.
func (q question) data(serial uint64) (b []byte) {
	if q.function >= 3 {
		for _, w := range words(serial, int(q.quantity)) {
			b = binary.BigEndian.AppendUint16(b, w)
		}
		return b
	}
	b = make([]byte, (q.quantity+7)/8)
	for i, w := range words(serial, int(q.quantity+15)/16) {
		for k := range 16 {
			if at := 16*i + k; at < int(q.quantity) {
				b[at/8] |= byte(w>>k&1) << (at % 8)
			}
		}
	}
	return b
}

// right reports what is wrong with data as the answer to q, asked at since.
func (p *plant) right(q question, data []byte, since time.Time) error {
	if len(data) < 2 {
		return fmt.Errorf("%d bytes of data", len(data))
	}
	serial := binary.BigEndian.Uint16(data)
	if q.function <= 2 {
		serial = binary.LittleEndian.Uint16(data)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.ring[serial]
	switch {
	case !bytes.Equal(data, x.data(x.serial)):
		return fmt.Errorf("% x was never sent", data)
	case x.question != q:
		return fmt.Errorf("accepted the answer to %+v (%s)", x.question, x.fault)
	case x.at.Before(since):
		return fmt.Errorf("accepted the answer to the same request of %v before (%s)", since.Sub(x.at), x.fault)
	}
	return nil
}

// frame makes a frame of unit and PDU, in the transaction of the request.
func (p *plant) frame(req []byte, unit byte, pdu ...byte) []byte {
	if !p.lane.tcp() {
		return drivertest.AppendCRC(append([]byte{unit}, pdu...))
	}
	b := append([]byte(nil), req[:4]...)
	b = binary.BigEndian.AppendUint16(b, uint16(1+len(pdu)))
	return append(append(b, unit), pdu...)
}

// answer is the plant's Script.
func (p *plant) answer(req []byte) []drivertest.Step {
	p.mu.Lock()
	defer p.mu.Unlock()
	pdu := req
	if p.lane.tcp() {
		pdu = req[6:]
	}
	q := question{pdu[0], pdu[1], binary.BigEndian.Uint16(pdu[2:]), binary.BigEndian.Uint16(pdu[4:])}
	p.serial++
	x := told{question: q, serial: p.serial, at: time.Now()}
	data := q.data(p.serial)
	ans := p.frame(req, q.unit, append([]byte{q.function, byte(len(data))}, data...)...)
	a := &attempt{p: p, q: q, req: req, wait: p.span(0, 50*time.Millisecond)}
	if p.lane.echo {
		a.echo = req
	}
	a.send(ans)
	if len(p.again) > 0 && p.onConn == p.conns() {
		a.steps[0].Bytes = append(bytes.Clone(p.again), ans...)
		p.again = nil
	} else if f := p.plan(); f != nil {
		x.fault = f.name
		p.hit[q] = f
		p.counts[f.name]++
		a.steps = nil
		f.do(a, ans)
	}
	p.ring[uint16(p.serial)] = x
	steps := p.schedule(a)
	if f := p.hit[q]; f != nil {
		p.alive[f] = p.quiet
	}
	return steps
}

// spells reports whether one of the unit's latest answers, to a probe perhaps,
// reads as one of the last requests on the line. p.mu is held.
func (p *plant) spells(unit byte) bool {
	r, ok := p.framing.(*rtu)
	for back := uint64(0); ok && back < 4; back++ {
		x := p.ring[uint16(p.serial-back)]
		data := x.data(x.serial)
		if x.unit == unit && r.echoes(drivertest.AppendCRC(append([]byte{unit, x.function, byte(len(data))}, data...))) {
			return true
		}
	}
	return false
}

// conns is how many connections there have been.
func (p *plant) conns() int {
	p.rig.mu.Lock()
	defer p.rig.mu.Unlock()
	return p.dials
}

// schedule puts the answer behind those under way and notes when it has arrived.
func (p *plant) schedule(a *attempt) []drivertest.Step {
	char := p.slave.Char
	end := time.Now().Add(time.Duration(len(a.req)+len(a.echo)) * char)
	if !p.lane.tcp() && p.free.After(end) && len(a.steps) > 0 {
		a.steps[0].Wait += p.free.Sub(end)
	}
	end = end.Add(time.Duration(-len(a.echo)) * char)
	if a.echo != nil { // at once, whatever the device is about
		a.steps = append([]drivertest.Step{{Bytes: a.echo}}, a.steps...)
	}
	if len(a.steps) == 0 {
		return nil
	}
	for _, s := range a.steps {
		end = end.Add(s.Wait + time.Duration(len(s.Bytes))*char)
	}
	if p.free.Before(end) {
		p.free = end
	}
	if a.away > 0 {
		p.away.Store(int64(a.away))
		end = end.Add(a.away)
	}
	if p.quiet.Before(end) {
		p.quiet = end
	}
	return a.steps
}

// span is a time from lo up to hi.
func (p *plant) span(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(p.rnd.Int64N(int64(hi-lo)))
}

// attempt is one answer while a fault shapes it.
type attempt struct {
	p     *plant
	q     question
	req   []byte
	wait  time.Duration // before the first byte of an answer in time
	steps []drivertest.Step
	echo  []byte        // of the request, before everything
	away  time.Duration // how long nobody connects after a cut
}

// send sends b after the device's ordinary time, and further calls at once after it.
func (a *attempt) send(b []byte) {
	wait := a.wait
	if len(a.steps) > 0 {
		wait = 0
	}
	a.after(wait, b)
}

func (a *attempt) after(wait time.Duration, b []byte) {
	a.steps = append(a.steps, drivertest.Step{Wait: wait, Bytes: bytes.Clone(b)})
}

// cut ends the connection after b, which is sent whole or not at all, and lets
// nobody connect for a while.
func (a *attempt) cut(b []byte, away time.Duration) {
	if len(b) == 0 {
		a.echo = nil
	} else {
		a.send(b)
	}
	a.steps = append(a.steps, drivertest.Step{Bytes: cutHere})
	a.away = away
}

// stall sends b and never a byte more on this connection.
func (a *attempt) stall(b []byte) {
	a.send(b)
	a.steps = append(a.steps, drivertest.Step{Bytes: stallHere})
}

// What is written in place of bytes to end or stall the connection in its turn.
var cutHere, stallHere = []byte("cut!"), []byte("stall")

// tap is the plant's end of a connection; its writes come one at a time.
type tap struct {
	net.Conn
	p       *plant
	mu      sync.Mutex // guards stalled
	stalled bool
}

func (c *tap) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stalled:
		return len(b), nil
	case bytes.Equal(b, stallHere):
		c.stalled = true
		return len(b), nil
	case !bytes.Equal(b, cutHere):
		return c.Conn.Write(b)
	}
	r := c.p.rig
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Conn.Close()
	if away := c.p.away.Swap(0); away > 0 {
		r.err = errors.New("no such device")
		time.AfterFunc(time.Duration(away), func() { r.mu.Lock(); defer r.mu.Unlock(); r.err = nil })
	}
	return len(b), nil
}

// outcome is what became of a call.
type outcome struct {
	kind Kind
	err  error
	took time.Duration
}

// ask makes one call and fails the test on a wrong value.
func (p *plant) ask(t *testing.T, q question) outcome {
	r := p.Reader(q.unit, Timing{Response: limit, InFlight: p.lane.inFlight})
	read := []func(context.Context, uint16, uint16) ([]byte, error){nil, r.ReadCoils, r.ReadDiscreteInputs, r.ReadHoldingRegisters, r.ReadInputRegisters}[q.function]
	start := time.Now()
	data, err := read(context.Background(), q.address, q.quantity)
	if err == nil {
		if why := p.right(q, data, start); why != nil {
			t.Errorf("WRONG VALUE for %+v: %v\n%s", q, why, dump(p.Trace()))
		}
	}
	return outcome{KindOf(err), err, time.Since(start)}
}

// question makes one up, such that old answers fit: few addresses, few forms,
// and half the time the unit and the form of the one before. Those asked at once
// differ by i.
func (p *plant) question(rnd *rand.Rand, i int) question {
	q := p.last
	if q.unit == 0 || rnd.IntN(2) == 0 {
		q = question{unit: byte(17 + rnd.IntN(5)), function: byte(1 + rnd.IntN(4))}
		if q.function >= 3 {
			q.quantity = uint16(2 + 2*rnd.IntN(3))
		} else {
			q.quantity = uint16(16 + 4*rnd.IntN(3))
		}
	}
	q.address = uint16(0x0300 + 8*rnd.IntN(3) + i)
	p.last = q
	return q
}

func dump(xs []Transaction) (s string) {
	for _, x := range xs[max(0, len(xs)-6):] {
		s += fmt.Sprintf("%d %v +%v > % x < % x %v %s\n", x.Number, x.Start.Format("05.000000"), x.Took, x.Request, x.Answer, x.Kind, x.Note)
	}
	return s
}
