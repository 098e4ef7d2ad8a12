package bus

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fault is something that befalls one answer.
type fault struct {
	name  string
	lanes func(lane) bool
	// kinds is what the call it befalls may end with, when nothing else is amiss.
	kinds []Kind
	// counter is what rises by at least one each time, until the bus has recovered.
	counter func(Counters) uint64
	// others is what requests in flight beside it may end with, besides an answer.
	others []Kind
	do     func(a *attempt, ans []byte)
}

const ok = Kind(0)

func everywhere(lane) bool { return true }
func onRTU(l lane) bool    { return !l.tcp() }
func onTCP(l lane) bool    { return l.tcp() }
func onEcho(l lane) bool   { return l.echo }
func noEcho(l lane) bool   { return !l.echo }
func onlyOne(l lane) bool  { return l.tcp() && l.inFlight == 1 }

func answers(c Counters) uint64 { return c.Answers }
func refused(c Counters) uint64 { return c.Refused }
func garbles(c Counters) uint64 { return c.Garbled }
func silence(c Counters) uint64 { return c.NoReply }
func losses(c Counters) uint64  { return c.Lost }
func lates(c Counters) uint64   { return c.Late }
func opens(c Counters) uint64   { return c.Opens }
func dropped(c Counters) uint64 { return c.Late + c.Stray }

// faults is the table of all that can befall an answer. A value is accepted
// after none of them unless it is the right one: that is not a column.
var faults = []fault{
	{"silence", everywhere, []Kind{NoReply}, silence, nil, func(a *attempt, _ []byte) {}},
	{"late, within the limit", everywhere, []Kind{ok}, answers, nil, func(a *attempt, b []byte) {
		a.after(a.p.span(limit/2, limit-time.Millisecond), b)
	}},
	{"late, by up to one limit", everywhere, []Kind{NoReply}, dropped, nil, func(a *attempt, b []byte) {
		a.after(a.p.span(limit+slack+time.Millisecond, 2*limit), b)
	}},
	{"late, by up to four limits", everywhere, []Kind{NoReply}, dropped, nil, func(a *attempt, b []byte) {
		a.after(a.p.span(2*limit, 5*limit), b)
	}},
	{"late and damaged", onRTU, []Kind{NoReply}, dropped, nil, func(a *attempt, b []byte) {
		a.after(a.p.span(limit+slack+time.Millisecond, 3*limit), a.burst(b, true))
	}},
	{"noise, and the answer late", onRTU, []Kind{Garbled}, garbles, nil, func(a *attempt, b []byte) {
		a.send([]byte{0xFF})
		a.after(a.p.span(limit, 5*limit), b)
	}},

	{"another unit's answer instead", onRTU, []Kind{NoReply}, lates, nil, func(a *attempt, b []byte) { a.send(a.of(a.q.unit+7, b)) }},
	{"another unit's answer instead (tcp)", onTCP, []Kind{Garbled}, garbles, []Kind{NotConnected}, func(a *attempt, b []byte) { a.send(a.of(a.q.unit+7, b)) }},
	{"another unit's answer before", onRTU, []Kind{ok}, lates, nil, func(a *attempt, b []byte) {
		a.send(a.of(a.q.unit+7, b))
		a.send(b)
	}},
	{"another request's answer instead", onRTU, []Kind{NoReply}, lates, nil, func(a *attempt, b []byte) { a.send(a.other()) }},
	{anothersBefore, onRTU, []Kind{ok}, lates, nil, func(a *attempt, b []byte) {
		a.send(a.other())
		a.send(b)
	}},
	{"another transaction's answer instead", onTCP, []Kind{NoReply}, lates, nil, func(a *attempt, b []byte) { a.send(a.elsewhen(b)) }},
	{"another transaction's answer before", onTCP, []Kind{ok}, lates, nil, func(a *attempt, b []byte) {
		a.send(a.elsewhen(b))
		a.send(b)
	}},
	{"answered twice", onTCP, []Kind{ok}, lates, nil, func(a *attempt, b []byte) {
		a.send(b)
		a.send(b)
	}},
	{"answered twice, late", onTCP, []Kind{ok}, lates, nil, func(a *attempt, b []byte) {
		a.send(b)
		a.p.again, a.p.onConn = b, a.p.conns()
	}},
	{"answered twice at once", onRTU, []Kind{Garbled}, garbles, nil, func(a *attempt, b []byte) { a.send(slices.Concat(b, b)) }},

	{"truncated", onRTU, []Kind{Garbled}, garbles, nil, func(a *attempt, b []byte) { a.send(b[:a.within(b)]) }},
	{"truncated (tcp)", onlyOne, []Kind{Garbled}, garbles, []Kind{NotConnected}, func(a *attempt, b []byte) { a.stall(b[:a.within(b)]) }},
	{"burst of up to 16 bits", onRTU, []Kind{Garbled}, garbles, nil, func(a *attempt, b []byte) { a.send(a.burst(b, true)) }},
	// The CRC's promise holds for frames of one length; of a damaged length it
	// is taken over other bytes, and one in 65,536 is a sound frame that
	// brings no value: another request's, or an exception.
	{"burst over the length", onRTU, []Kind{Garbled, NoReply, Refused}, nil, nil, func(a *attempt, b []byte) { a.send(a.burst(b, false)) }},
	{"damaged transaction identifier", onTCP, []Kind{NoReply}, lates, nil, func(a *attempt, b []byte) { a.send(a.otherwise(b)) }},
	{"damaged protocol identifier", onTCP, []Kind{Garbled}, garbles, []Kind{NotConnected}, func(a *attempt, b []byte) { a.send(a.change(b, 2, 4)) }},
	{"damaged length", onTCP, []Kind{Garbled}, garbles, []Kind{NotConnected, NoReply}, func(a *attempt, b []byte) { a.send(a.change(b, 4, 6)) }},
	{"damaged unit", onTCP, []Kind{Garbled}, garbles, []Kind{NotConnected}, func(a *attempt, b []byte) { a.send(a.change(b, 6, 7)) }},
	{"damaged function code", onTCP, []Kind{Garbled}, garbles, []Kind{NotConnected}, func(a *attempt, b []byte) { a.send(a.change(b, 7, 8)) }},
	{"damaged byte count", onTCP, []Kind{Garbled}, garbles, []Kind{NotConnected}, func(a *attempt, b []byte) { a.send(a.change(b, 8, 9)) }},

	{"split at two places", everywhere, []Kind{ok}, answers, nil, func(a *attempt, b []byte) { a.split(b) }},
	{"dribble, in time", everywhere, []Kind{ok}, answers, nil, func(a *attempt, b []byte) { a.dribble(b, 5*time.Millisecond) }},
	{"dribble, too slow", onRTU, []Kind{Garbled}, garbles, nil, func(a *attempt, b []byte) { a.dribble(b, 60*time.Millisecond) }},
	{"dribble, too slow (tcp)", onlyOne, []Kind{Garbled}, garbles, []Kind{NotConnected}, func(a *attempt, b []byte) { a.dribble(b, 60*time.Millisecond) }},

	{"echo nobody configured", noEcho, []Kind{Garbled}, garbles, []Kind{NotConnected}, func(a *attempt, b []byte) {
		a.echo = a.req
		a.send(b)
	}},
	{"echo and no answer", onEcho, []Kind{NoReply}, silence, nil, func(a *attempt, _ []byte) {}},
	{"no echo", onEcho, []Kind{Garbled}, garbles, nil, func(a *attempt, b []byte) {
		a.echo = nil
		a.send(b)
	}},
	{"damaged echo", onEcho, []Kind{Garbled}, garbles, nil, func(a *attempt, b []byte) {
		a.echo = a.change(a.req, 0, len(a.req))
		a.send(b)
	}},

	{"exception", everywhere, []Kind{Refused}, refused, nil, func(a *attempt, _ []byte) { a.send(a.exception()) }},
	{"exception in two parts", everywhere, []Kind{Refused}, refused, nil, func(a *attempt, _ []byte) { a.split(a.exception()) }},
	{"burst in an exception", onRTU, []Kind{Garbled}, garbles, nil, func(a *attempt, _ []byte) { a.send(a.burst(a.exception(), true)) }},

	{"hang-up", everywhere, []Kind{ok}, opens, []Kind{NotConnected}, func(a *attempt, _ []byte) { a.cut(nil, 0) }},
	{"hang-up after the answer", everywhere, []Kind{ok}, opens, []Kind{NotConnected}, func(a *attempt, b []byte) { a.cut(b, 0) }},
	{"unplugged mid-answer", everywhere, []Kind{NotConnected}, losses, []Kind{NotConnected}, func(a *attempt, b []byte) { a.cut(b[:a.within(b)], 0) }},
	{"unplugged for a while", everywhere, []Kind{NotConnected}, losses, []Kind{NotConnected}, func(a *attempt, b []byte) {
		a.cut(b[:a.within(b)], a.p.span(limit, 20*limit))
	}},

	{"noise before", onRTU, []Kind{Garbled}, garbles, nil, func(a *attempt, b []byte) {
		a.send(slices.Concat([]byte{byte(a.p.rnd.Uint32())}, b))
	}},
	{"glitch after", onRTU, []Kind{ok}, answers, nil, func(a *attempt, b []byte) { a.send(append(bytes.Clone(b), 0, 0xFF)[:len(b)+1+a.p.rnd.IntN(2)]) }},
	{"noise after", onRTU, []Kind{Garbled}, garbles, nil, func(a *attempt, b []byte) { a.send(append(bytes.Clone(b), 0, 0xFF, 0x55)) }},
	{"babble", onRTU, []Kind{Garbled}, garbles, nil, func(a *attempt, _ []byte) { a.send(bytes.Repeat([]byte{0xFF, 0x00, 0x55}, 200)) }},
}

// of makes b another unit's.
func (a *attempt) of(unit byte, b []byte) []byte {
	pdu := b[1 : len(b)-2]
	if a.p.lane.tcp() {
		pdu = b[7:]
	}
	return a.p.frame(a.req, unit, pdu...)
}

// other is a sound answer of the unit, of a count that nobody asks for: not even a probe.
func (a *attempt) other() []byte {
	return a.p.frame(a.req, a.q.unit, byte(1+a.p.rnd.IntN(4)), 5, 1, 2, 3, 4, 5)
}

// elsewhen makes b that of a transaction that is not under way.
func (a *attempt) elsewhen(b []byte) []byte {
	c := bytes.Clone(b)
	id := (uint16(c[0]) - uint16(20+a.p.rnd.IntN(200))) & 0xFF
	c[0], c[1] = byte(id), byte(id)
	return c
}

// otherwise damages one byte of the transaction identifier of b; half the time
// as little as can be, which is likeliest to hit another request in flight.
func (a *attempt) otherwise(b []byte) []byte {
	if a.p.rnd.IntN(2) == 0 {
		return a.change(b, 0, 2)
	}
	c := bytes.Clone(b)
	c[1] ^= byte(1 + a.p.rnd.IntN(3))
	return c
}

func (a *attempt) exception() []byte {
	return a.p.frame(a.req, a.q.unit, a.q.function|0x80, byte(1+a.p.rnd.IntN(11)))
}

// within is a place within b that leaves something on both sides.
func (a *attempt) within(b []byte) int { return 1 + a.p.rnd.IntN(len(b)-1) }

// change changes one byte of b at random, from the place lo to hi.
func (a *attempt) change(b []byte, lo, hi int) []byte {
	c := bytes.Clone(b)
	c[lo+a.p.rnd.IntN(hi-lo)] ^= byte(1 + a.p.rnd.IntN(255))
	return c
}

// burst damages up to 16 bits in a row, in the order of the line: lowest bit
// first. It spares the function code and the byte count, or hits them.
func (a *attempt) burst(b []byte, spare bool) []byte {
	for {
		c := bytes.Clone(b)
		n := 1 + a.p.rnd.IntN(16)
		flipBits(c, a.p.rnd.IntN(8*len(c)-n+1), n, a.p.rnd.Uint32())
		if spare == (c[1] == b[1] && c[2] == b[2]) {
			return c
		}
	}
}

// flipBits flips the first and the last of n bits from the place at on, and of
// those between the ones that pattern tells.
func flipBits(b []byte, at, n int, pattern uint32) {
	pattern |= 1 | 1<<(n-1)
	for i := range n {
		b[(at+i)/8] ^= byte(pattern>>i&1) << ((at + i) % 8)
	}
}

func (a *attempt) split(b []byte) {
	i := a.within(b)
	k := i + a.p.rnd.IntN(len(b)-i)
	a.send(b[:i])
	a.after(a.p.span(0, 40*time.Millisecond), b[i:k])
	a.after(a.p.span(0, 40*time.Millisecond), b[k:])
}

func (a *attempt) dribble(b []byte, each time.Duration) {
	for i := range b {
		a.after(each, b[i:i+1])
	}
}

// recovery is how long the first read after all is quiet again may take: what
// is left of one response limit and its slack while a late answer is still
// waited for, then a probe and the read itself.
const recovery = limit + slack + 2*(limit/2)

// mostAway is how much longer a port that is back may stay unnoticed: half the
// time it was away, by the back-off, which here doubles from 250 ms, thrice.
const mostAway = 4 * time.Second

// TestFaults throws each fault alone, many times, and holds the call it befalls
// and the bus after it against the table. TestFaultsMixed throws them all.
// Together they are about 190,000 transactions.
func TestFaults(t *testing.T) {
	seed := faultSeed(t)
	const each = 130 // of every kind on every lane
	var mu sync.Mutex
	calls, occurred := 0, map[string]int{}
	for _, l := range lanes {
		for i, f := range faults {
			if !f.lanes(l) {
				continue
			}
			t.Run(l.name+"/"+f.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPlant(t, l, rand.New(rand.NewPCG(seed, uint64(i))))
					asks := rand.New(rand.NewPCG(seed, 1000+uint64(i)))
					for range each {
						f.alone(t, p, asks)
						if t.Failed() {
							return
						}
					}
					mu.Lock()
					defer mu.Unlock()
					calls += int(p.serial)
					occurred[f.name] += p.counts[f.name]
					if n := p.counts[f.name]; n < each {
						t.Errorf("occurred %d times, want %d", n, each)
					}
				})
			})
		}
	}
	t.Logf("%d transactions; occurred: %v", calls, occurred)
}

// alone asks as many questions at once as the lane allows; f befalls the first
// that arrives. Then it asks on until the bus has recovered.
func (f fault) alone(t *testing.T, p *plant, asks *rand.Rand) {
	round := func(plan func() *fault) map[question]outcome {
		p.mu.Lock()
		p.plan, p.hit = plan, map[question]*fault{}
		p.mu.Unlock()
		return p.round(t, asks)
	}
	none := func() *fault { return nil }
	for q, o := range round(none) { // the connection is proved
		if o.err != nil {
			t.Fatalf("undisturbed: %+v: %v\n%s", q, o.err, dump(p.Trace()))
		}
	}
	before := p.Counters()
	armed := true // guarded by p.mu
	for q, o := range round(func() *fault {
		if !armed {
			return nil
		}
		armed = false
		return &f
	}) {
		p.mu.Lock()
		hit := p.hit[q] != nil || p.lane.inFlight == 1 // a probe is the call's own
		p.mu.Unlock()
		if hit && !slices.Contains(f.kinds, o.kind) {
			t.Errorf("%+v: %v (%v), allowed is %v\n%s", q, o.kind, o.err, f.kinds, dump(p.Trace()))
		}
		if !hit && o.err != nil && !slices.Contains(f.others, o.kind) {
			t.Errorf("beside it: %+v: %v (%v), allowed is %v\n%s", q, o.kind, o.err, f.others, dump(p.Trace()))
		}
		if most := 2*limit + slack + 600*time.Millisecond; o.took > most { // the absolute deadline, with the line's time
			t.Errorf("took %v, want at most %v", o.took, most)
		}
	}
	if asks.IntN(2) == 0 { // half the time the next request meets what is left of it
		p.settleDown()
	}
	returned := time.Now()
	for {
		start := time.Now()
		p.mu.Lock()
		quiet := p.quiet
		p.mu.Unlock()
		if quiet.Before(returned) {
			quiet = returned
		}
		good := true
		for q, o := range round(none) {
			good = good && o.err == nil
			if o.err != nil && start.After(quiet) && o.kind != NotConnected {
				t.Errorf("all was quiet since %v, but %+v: %v\n%s", start.Sub(quiet), q, o.err, dump(p.Trace()))
			}
		}
		most := recovery
		if strings.Contains(f.name, "for a while") {
			most += mostAway
		}
		if took := time.Since(quiet); took > most {
			t.Errorf("recovery took %v since all was quiet, want at most %v\n%s", took, most, dump(p.Trace()))
		}
		if good || t.Failed() {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.settleDown()
	for range 2 { // what came last is found by the next request
		round(none)
	}
	if c := p.Counters(); f.counter != nil && f.counter(c) == f.counter(before) {
		t.Errorf("its counter did not rise: %+v\n%s", c, dump(p.Trace()))
	}
}

// round asks questions, as many at once as the lane allows.
func (p *plant) round(t *testing.T, asks *rand.Rand) map[question]outcome {
	before := p.Counters()
	got := make(map[question]outcome, p.lane.inFlight)
	if p.lane.inFlight == 1 {
		q := p.question(asks, 0)
		got[q] = p.ask(t, q)
	} else {
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range p.lane.inFlight {
			q := p.question(asks, i)
			all.Go(func() {
				o := p.ask(t, q)
				mu.Lock()
				defer mu.Unlock()
				got[q] = o
			})
		}
		all.Wait()
	}
	want := before // every outcome has its counter
	for _, o := range got {
		want.Requests++
		*[]*uint64{&want.Answers, &want.Refused, &want.Garbled, &want.NoReply, &want.Lost}[o.kind]++
	}
	c := p.Counters()
	want.Late, want.Stray, want.Probes, want.Opens, want.Attempts = c.Late, c.Stray, c.Probes, c.Opens, c.Attempts
	if c != want {
		t.Errorf("counters %+v, want %+v", c, want)
	}
	return got
}

// settleDown waits until everything sent has arrived.
func (p *plant) settleDown() {
	p.mu.Lock()
	quiet := p.quiet
	p.mu.Unlock()
	time.Sleep(time.Until(quiet) + time.Millisecond)
}

const anothersBefore = "another request's answer before"

// TestFaultsMixed throws all faults of a lane at a line by chance, one upon the
// other. A call ends well, or as a fault of its own allows; as damage or silence
// while something of before is still to come; without a connection until one has
// answered.
func TestFaultsMixed(t *testing.T) {
	seed := faultSeed(t)
	for i, l := range lanes {
		t.Run(l.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { mixed(t, l, seed+uint64(i), 10_000) })
		})
	}
}

func mixed(t *testing.T, l lane, seed uint64, n int) {
	p := newPlant(t, l, rand.New(rand.NewPCG(seed, 1)))
	asks := rand.New(rand.NewPCG(seed, 2))
	var mine []*fault
	for i := range faults {
		if faults[i].lanes(l) {
			mine = append(mine, &faults[i])
		}
	}
	p.mu.Lock()
	p.plan = func() *fault {
		// A device that is behind by more than this would be beyond the
		// patience of the line: see owed.go.
		if p.rnd.IntN(2) == 0 || time.Until(p.free) > leastPatience/2 {
			return nil
		}
		return mine[p.rnd.IntN(len(mine))]
	}
	p.mu.Unlock()
	outcomes := map[Kind]int{}
	for i := 0; i < n && !t.Failed(); i += l.inFlight {
		start := time.Now()
		p.mu.Lock()
		clear(p.hit)
		busy := !p.quiet.Before(start) // something of before is still to come
		for f := range p.alive {
			if !busy && !f.cuts() {
				delete(p.alive, f)
			}
		}
		p.mu.Unlock()
		good, lost := true, false
		got := p.round(t, asks)
		p.mu.Lock()
		for q, o := range got {
			outcomes[o.kind]++
			good, lost = good && o.kind == ok, lost || o.kind == NotConnected
			allowed := o.kind == ok || busy && (o.kind == Garbled || o.kind == NoReply)
			for f := range p.alive {
				allowed = allowed || slices.Contains(f.kinds, o.kind) || slices.Contains(f.others, o.kind)
				// When an older fault has left this other answer due, it may be of the
				// very form asked for, and what follows it is told as damage.
				allowed = allowed || f.name == anothersBefore && o.kind == Garbled
			}
			// An answer that spells one of the last requests is told as damage: see echoes.
			allowed = allowed || o.kind == Garbled && p.spells(q.unit)
			if !allowed {
				t.Errorf("%+v: %v (%v) with %v\n%s", q, o.kind, o.err, names(p.alive), dump(p.Trace()))
			}
		}
		for f, sent := range p.alive { // answers in flight together wait for each other
			if good && f.cuts() && sent.Add(2*limit).Before(start) {
				delete(p.alive, f)
			}
		}
		p.mu.Unlock()
		if !good { // as a poll that failed is not repeated at once
			time.Sleep(time.Duration(asks.Int64N(int64(backoffFirst))))
		}
		if lost { // its back-off would fill the count with calls that ask nobody
			time.Sleep(mostAway)
		}
	}
	t.Logf("outcomes %v, counters %+v", outcomes, p.Counters())
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range mine {
		if p.counts[f.name] < n/200/len(mine) {
			t.Errorf("%q occurred only %d times", f.name, p.counts[f.name])
		}
	}
	for _, k := range []Kind{ok, Refused, Garbled, NoReply, NotConnected} {
		if outcomes[k] < n/100 {
			t.Errorf("%v only %d times of %d", k, outcomes[k], n)
		}
	}
}

// cuts reports whether the fault ends the connection.
func (f *fault) cuts() bool { return slices.Contains(f.others, NotConnected) }

func names(fs map[*fault]time.Time) (s string) {
	for f := range fs {
		s += fmt.Sprintf("%q ", f.name)
	}
	return s
}
