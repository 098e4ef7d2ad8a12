package bus

import (
	"sync"
	"time"
)

// Transaction is one request and what came of it: the evidence for a reading.
type Transaction struct {
	Number            uint64        // counts from 1 over the life of the Bus
	Start             time.Time     // when the request was handed to the line
	Took              time.Duration // until the last byte of the answer, or the verdict
	Unit, Function    byte
	Address, Quantity uint16
	Request           []byte // the frame as sent; empty if it never was
	Answer            []byte // every byte received since, sound or not
	// Dropped is what came before the request, since the transaction before it,
	// and was thrown away: late answers (Counters.Late), remainders and noise
	// (Counters.Stray). Over Modbus TCP, where the answer to another request may
	// come at any time, it is what came of that kind until this transaction's
	// end. The first 512 bytes are kept.
	Dropped []byte
	Kind    Kind   // 0: data came
	Code    byte   // exception code when Kind is Refused
	Note    string // what was wrong, "" when nothing was
	// Aside marks a request that nobody asked for by itself: one register asked
	// for first, to learn that no older answer is under way (Counters.Probes),
	// or an attempt over a connection that proved dead and was repeated over a
	// new one. Counters do not count it as a request.
	Aside bool
}

// Counters count what happened on a Bus since it was made.
type Counters struct {
	Requests uint64 // transactions tried, of which:
	Answers  uint64 // brought data
	Refused  uint64 // brought an exception
	Garbled  uint64
	NoReply  uint64
	Lost     uint64 // not connected
	Canceled uint64
	// Late counts sound answers that came after their time-out, or to another
	// transaction or unit, and were dropped.
	Late uint64
	// Stray counts bytes that came when nothing was expected.
	Stray uint64
	// Probes counts requests that were sent only to learn that no older answer
	// is under way any more.
	Probes uint64
	// Opens counts how often the port was opened or the peer dialled with success.
	Opens uint64
	// Attempts counts how often that was tried.
	Attempts uint64
}

// traceDepth is how many transactions the ring keeps: at 9600 baud the last
// few seconds, at 75 KiB in the worst case. A board may have forty of them.
const traceDepth = 64

// mostDropped bounds Transaction.Dropped.
const mostDropped = 2 * maxRTU

// trace is the ring. Its buffers are reused, so a running bus allocates nothing for it.
type trace struct {
	mu     sync.Mutex // guards everything below
	ring   [traceDepth]Transaction
	next   uint64
	counts Counters
	missed []byte // answers over TCP that came too late, since the last transaction
}

// add files one transaction; it copies its bytes.
func (t *trace) add(x Transaction) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := &t.ring[t.next%traceDepth]
	req, ans, dropped := append(slot.Request[:0], x.Request...), append(slot.Answer[:0], x.Answer...), append(slot.Dropped[:0], x.Dropped...)
	t.next++
	x.Number = t.next
	x.Request, x.Answer, x.Dropped = req, ans, append(dropped, t.missed...)
	t.missed = t.missed[:0]
	*slot = x
	c := &t.counts
	if x.Aside {
		return
	}
	c.Requests++
	switch x.Kind {
	case 0:
		c.Answers++
	case Refused:
		c.Refused++
	case Garbled:
		c.Garbled++
	case NoReply:
		c.NoReply++
	case NotConnected:
		c.Lost++
	case Canceled:
		c.Canceled++
	}
}

// late counts an answer over TCP that nobody waits for any more, and keeps it
// for the next transaction's Dropped.
func (t *trace) late(frame []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Late++
	t.missed = append(t.missed, frame[:min(len(frame), mostDropped-len(t.missed))]...)
}

func (t *trace) count(f func(*Counters)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.counts)
}

func (t *trace) last() []Transaction {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(t.next, traceDepth)
	out := make([]Transaction, 0, n)
	for i := t.next - n; i < t.next; i++ {
		x := t.ring[i%traceDepth]
		x.Request = append([]byte(nil), x.Request...)
		x.Answer = append([]byte(nil), x.Answer...)
		x.Dropped = append([]byte(nil), x.Dropped...)
		out = append(out, x)
	}
	return out
}
