package bus

import (
	"encoding/binary"
	"time"
)

// A frame of RTU does not say which request it answers. When a device is much
// slower than its limit, the answer to a request that was given up may come
// after the next one has gone out, and if both ask for equally much nothing in
// the frame tells them apart: the register would show another's value.
//
// A device answers in the order it was asked. So the line keeps, for each
// unit, what it still owes; an answer is taken for the oldest request of its
// form, and for the newest only when no older one has that form. Before a
// request whose form is still owed, one register is asked for (a probe): when
// its answer comes, everything before it is settled. Where one register has the
// form of what is owed a probe asks for more, beyond what the model bears perhaps:
// a refusal settles as much as an answer.
//
// How long an answer is reckoned with follows the device: at least patience
// response limits, and twice what its latest late answer took. A unit that owes
// mostDebts answers is not asked before one has come or is reckoned with no more.
//
// So an old answer is taken for a new one, even to the very same request, only
// where RTU leaves no way to tell: it comes later than that after its request
// was given up; the device answers out of order, or one request twice, the second time after the next has gone
// out; the port was lost in between, and the answer outlasted one more limit.
// The fault suite (fault_test.go) throws everything else.

// form is all that an answer tells of its request.
type form struct {
	function byte
	bytes    int // of data
}

// debt is a request that was given up and may still be answered.
type debt struct {
	form
	given time.Time // when it was given up
	until time.Time // longer is not waited for
}

// patience is for how many response limits, and at least how long, an answer
// is still reckoned with.
const (
	patience      = 10
	leastPatience = 10 * time.Second
	mostDebts     = 64
)

// reckoned is how long an answer is reckoned with after its request was given up.
func reckoned(response time.Duration) time.Duration { return max(patience*response, leastPatience) }

// debts are what one unit owes, oldest first.
type debts []debt

// full reports that nothing more may be asked for.
func (d debts) full() bool { return len(d) >= mostDebts }

func (r request) form() form { return form{r.function, r.dataBytes()} }

// forget drops what is not expected any more.
func (d *debts) forget(now time.Time) {
	n := 0
	for n < len(*d) && now.After((*d)[n].until) {
		n++
	}
	*d = (*d)[n:]
}

// owes reports whether an answer of the form f may be an older request's.
func (d debts) owes(f form) bool {
	for _, x := range d {
		if x.form == f {
			return true
		}
	}
	return false
}

// settle takes the sound frame for the oldest debt of its form, and with it
// everything older; it reports whether there was one, and when that was given
// up. An exception has the form of every request of its function.
func (d *debts) settle(frame []byte) (given time.Time, was bool) {
	for i, x := range *d {
		if frame[1] == x.function && int(frame[2]) == x.bytes || frame[1] == x.function|0x80 {
			*d = (*d)[i+1:]
			return x.given, true
		}
	}
	return time.Time{}, false
}

// add notes a request that was given up now, whose answer is reckoned with for
// so long.
func (d *debts) add(f form, now time.Time, reckoned time.Duration) {
	if d.full() {
		*d = (*d)[1:]
	}
	*d = append(*d, debt{f, now, now.Add(reckoned)})
}

// probe is the request that settles what the unit of r owes: it begins where r
// begins and has a form of its own, the smallest. As no more than mostDebts are
// owed there always is one; a device that does not let so many be read says so.
func (d debts) probe(r request) request {
	p := request{unit: r.unit, function: r.function, address: r.address, quantity: 1}
	for p.dataBytes() == r.dataBytes() || d.owes(p.form()) {
		if p.quantity++; p.function <= 2 {
			p.quantity += 7 // one byte more
		}
	}
	p.adu = append(p.adu, p.unit, p.function)
	p.adu = binary.BigEndian.AppendUint16(p.adu, p.address)
	p.adu = binary.BigEndian.AppendUint16(p.adu, p.quantity)
	p.adu = binary.LittleEndian.AppendUint16(p.adu, crc16(p.adu))
	return p
}
