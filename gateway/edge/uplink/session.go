package uplink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"luquan/gateway/wire"
)

const (
	tick = time.Second
	// held is how long a session lasts at least that is not counted among the
	// failures in a row: a broker that was away for 10 s must not cost a
	// minute because it was away an hour ago too.
	held = 15 * time.Second
	// stuck is how long a PUBACK may be due before nothing more is added: on a
	// slow link what is on its way already delays what is new.
	stuck = 3 * time.Second
	// reserve is the part of the window that the backlog leaves to live.
	reserve = 4
	// restate is the least time between two announcements of the state.
	restate = 10 * time.Second
)

var errStopped = errors.New("uplink: stopped")

// session is one connection. Everything but the inbox belongs to one goroutine.
type session struct {
	u     *Uplink
	link  Link
	name  string
	since time.Time
	inbox *inbox

	flight   []flight  // in the order of publishing
	linkPace pace      // of the backlog to the broker
	hubPace  pace      // and to the hub's store
	backPack int       // bytes a payload of the backlog is filled to
	ahead    []ahead   // of the backlog, what the broker has and the hub has not settled, in the order of publishing
	saidAt   time.Time // when committed last came
	begun    time.Time
	tokens   float64 // bytes the backlog may send
	tokensAt time.Time

	held     []Held
	epoch    uint64 // the current one
	liveNext uint64 // first seq of the current epoch that live has not published
	marks    []mark // when the records from liveNext on were first seen
	backlog  []span // to be published on backfill
	readAt   time.Time
	liveAt   time.Time    // of the last live payload
	backAt   time.Time    // of the last payload of the backlog
	unfilled uint64       // the records to here are known not to fill a payload
	timeless bool         // what live would send next waits for its stamp
	trip     atomic.Int64 // the shortest publish to PUBACK, ns; 0: none yet

	sent     []sent // published and not committed, in the order of publishing
	nextN    uint64
	passedN  uint64    // the latest publish of which something was committed
	progress time.Time // when committed last moved, or nothing was waiting for it
	repeated time.Time // when the oldest payload was repeated since, or progress
	stall    time.Duration

	stateAt   time.Time // last announced
	stateDue  bool
	restated  int             // times it was overwritten in this session
	metas     map[string]bool // announced in this session
	cleared   map[string]bool // dropped in this session
	lookedAt  time.Time       // when sent was last gone through
	published uint64
	resent    uint64
	skips     uint64
}

// flight is one publish without PUBACK.
type flight struct {
	token Token
	at    time.Time
	span  span   // records; the zero span for documents
	back  int    // bytes, of the backlog; 0: something else
	done  func() // after the PUBACK; may be nil
}

// span is a range of records of one epoch.
type span struct{ epoch, first, last uint64 }

func (s span) len() uint64 {
	if s.first > s.last || s.first == 0 {
		return 0
	}
	return s.last - s.first + 1
}

// mark says that the records to last were there at that time.
type mark struct {
	last uint64
	at   time.Time
}

// inbox is where the link's handler puts what arrives: only the newest
// document of a kind counts, so it never blocks and never grows.
type inbox struct {
	signal chan struct{} // capacity 1

	mu        sync.Mutex // guards what follows
	committed []byte
	state     []byte
}

func (b *inbox) put(slot *[]byte, doc []byte) {
	b.mu.Lock()
	*slot = doc
	b.mu.Unlock()
	b.poke()
}

func (b *inbox) poke() {
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

func (b *inbox) take() (committed, state []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	committed, state = b.committed, b.state
	b.committed, b.state = nil, nil
	return committed, state
}

// session dials, works until the link is lost or ctx done, and says why it ended.
func (u *Uplink) session(ctx context.Context) error {
	s := &session{u: u, name: newSession(), inbox: &inbox{signal: make(chan struct{}, 1)},
		metas: map[string]bool{}, cleared: map[string]bool{}}
	s.held = u.queue.Holds()
	will, err := s.state(false)
	if err != nil {
		return err
	}
	subscribe := []string{u.topic(wire.StateDoc), wire.Topic{What: wire.TimeBeat, Arg: "+"}.String()}
	if u.cfg.Commit == CommitHub {
		subscribe = append(subscribe, u.topic(wire.CommitDoc))
	}
	s.link, err = u.cfg.Dial(ctx, Message{u.topic(wire.StateDoc), 1, true, will}, subscribe, s.receive)
	if err != nil {
		return err
	}
	s.begin()
	err = s.loop(ctx)
	if errors.Is(err, errStopped) {
		s.stop()
		return nil
	}
	u.cfg.Disconnected()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	s.link.Close(closing)
	return err
}

// receive is the link's handler.
func (s *session) receive(m Message) {
	u := s.u
	switch m.Topic {
	case u.topic(wire.CommitDoc):
		s.inbox.put(&s.inbox.committed, m.Payload)
	case u.topic(wire.StateDoc):
		// The retained one is from before this session; what comes later and
		// is not ours is the will of a connection the broker gave up late, or
		// another board with our name.
		if !m.Retained {
			s.inbox.put(&s.inbox.state, m.Payload)
		}
	default:
		// A retained time would be old. A wrong document is the hub's fault
		// and no reason to stop: the next comes in seconds.
		if u.cfg.HubTime == nil || m.Retained {
			return
		}
		if t, err := wire.ParseHubTime(m.Payload); err == nil {
			u.cfg.HubTime(time.Unix(0, t.Time), time.Duration(s.trip.Load()))
			s.inbox.poke() // records may have waited for it
		}
	}
}

// begin announces the board and plans what to send: all that is held goes to
// the backlog, live begins with what is appended from now on.
func (s *session) begin() {
	u, now := s.u, time.Now()
	s.since, s.tokensAt = u.cfg.Now(), now
	u.cfg.Connected()
	s.moved(now)
	s.tokens = burst(u.cfg.Lanes)
	s.linkPace, s.hubPace, s.backPack = linkPace(now), hubPace(), leastPack
	s.saidAt, s.begun = now, now
	s.held = u.queue.Holds()
	for _, h := range s.held {
		if h.Current {
			s.epoch, s.liveNext = h.Epoch, h.Last+1
		}
		s.backlog = append(s.backlog, s.without(span{h.Epoch, h.First, h.Last})...)
	}
	s.announce(now)
	for _, h := range s.held {
		_, cfg := parseLabel(h.Label)
		s.announceMeta(cfg)
	}
	s.announceMeta(u.cfg.Cfg)
	s.clearMetas()
	u.log.Info("uplink is up", "session", s.name, "backlog", s.waiting())
	s.note()
	u.note(func(st *Stats) { st.Connected, st.Session, st.Since, st.LastError = true, s.name, now, "" })
	u.refresh("connected")
}

// without takes from a span what is acknowledged and only waits for its age
// (CommitNone), so that a new connection does not send it again.
func (s *session) without(x span) []span {
	out := []span{x}
	for _, k := range s.u.kept {
		var next []span
		for _, o := range out {
			next = append(next, subtract(o, k.span)...)
		}
		out = next
	}
	var some []span
	for _, o := range out {
		if o.len() > 0 {
			some = append(some, o)
		}
	}
	return some
}

// subtract returns what of a is not in b.
func subtract(a, b span) []span {
	if a.epoch != b.epoch || b.last < a.first || b.first > a.last {
		return []span{a}
	}
	var out []span
	if b.first > a.first {
		out = append(out, span{a.epoch, a.first, b.first - 1})
	}
	if b.last < a.last {
		out = append(out, span{a.epoch, b.last + 1, a.last})
	}
	return out
}

// loop works until the link is lost or ctx is done.
func (s *session) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := s.acknowledged(); err != nil {
			return err
		}
		wait := s.work(time.Now())
		timer.Reset(wait)
		var acked <-chan struct{}
		if len(s.flight) > 0 {
			acked = s.flight[0].token.Done()
		}
		select {
		case <-ctx.Done():
			return errStopped
		case <-s.link.Lost():
			return fmt.Errorf("uplink: %w", s.link.Err())
		case <-s.u.queue.Notify():
		case <-s.inbox.signal:
		case <-acked:
		case <-timer.C:
		}
	}
}

// work does everything that is due and returns when to look again.
func (s *session) work(now time.Time) time.Duration {
	committed, state := s.inbox.take()
	if committed != nil {
		s.committed(now, committed)
	}
	if state != nil {
		s.overwritten(state)
	}
	s.look(now)
	wait := min(tick, s.live(now, false))
	if now.Sub(s.lookedAt) >= tick/4 { // there may be thousands
		s.lookedAt = now
		s.resend(now)
		s.expire(now)
		s.note()
	}
	wait = min(wait, s.backfill(now))
	if s.stateDue && now.Sub(s.stateAt) >= restate {
		s.announce(now)
	}
	return wait
}

// acknowledged takes the publishes that are done from the head of the window.
// Brokers acknowledge in order; one that does not only delays us.
func (s *session) acknowledged() error {
	for len(s.flight) > 0 {
		f := s.flight[0]
		select {
		case <-f.token.Done():
		default:
			return nil
		}
		if err := f.token.Err(); err != nil {
			return err
		}
		s.flight = s.flight[1:]
		took := time.Since(f.at)
		if t := s.trip.Load(); t == 0 || int64(took) < t {
			s.trip.Store(max(1, int64(took)))
		}
		if waited := s.linkPace.took(took); f.back > 0 {
			s.linkPace.done(f.back, waited)
			s.resize(f.back, waited)
			s.goesAhead(time.Now(), f.span, f.back)
		}
		if f.span.len() > 0 {
			s.puback(f.span)
		}
		if f.done != nil {
			f.done()
		}
	}
	return nil
}

// look takes in what the queue holds now.
func (s *session) look(now time.Time) {
	held := s.u.queue.Holds()
	changed := len(held) != len(s.held)
	s.held = held
	for _, h := range held {
		if h.Epoch != s.epoch {
			continue
		}
		seen := s.liveNext - 1
		if n := len(s.marks); n > 0 {
			seen = s.marks[n-1].last
		}
		if h.Last > seen {
			// One mark for a tenth of a second keeps them few; a mark may say
			// too early a time, never too late.
			if n := len(s.marks); n > 0 && now.Sub(s.marks[n-1].at) < 100*time.Millisecond {
				s.marks[n-1].last = h.Last
			} else {
				s.marks = append(s.marks, mark{h.Last, now})
			}
		}
	}
	if changed {
		s.stateDue = true
		s.clearMetas()
	}
}

// publish hands a message to the link and puts it at the end of the window.
func (s *session) publish(now time.Time, topic string, retained bool, payload []byte, f flight) {
	f.token, f.at = s.link.Publish(topic, 1, retained, payload), now
	s.flight = append(s.flight, f)
	s.linkPace.under += f.back
}

// stop drains: what live has not sent, then the PUBACKs, then offline.
func (s *session) stop() {
	u := s.u
	// A third of the time is for saying goodbye.
	closing, cancelClosing := context.WithTimeout(context.Background(), u.cfg.Lanes.Drain)
	defer cancelClosing()
	ctx, cancel := context.WithTimeout(closing, u.cfg.Lanes.Drain*2/3)
	defer cancel()
	drained := func() bool {
		if s.acknowledged() != nil {
			return true // lost: nothing more to wait for
		}
		now := time.Now()
		s.look(now)
		s.live(now, true)
		return len(s.flight) == 0
	}
	s.await(ctx, drained)
	if doc, err := s.state(false); err == nil {
		token := s.link.Publish(u.topic(wire.StateDoc), 1, true, doc)
		select {
		case <-token.Done():
		case <-closing.Done():
		case <-s.link.Lost():
		}
	}
	s.link.Close(closing)
	s.note()
	u.log.Info("uplink is closed", "session", s.name, "unacknowledged", len(s.flight))
}

// await waits until cond holds, the link is lost or ctx is done.
func (s *session) await(ctx context.Context, cond func() bool) {
	for !cond() {
		select {
		case <-s.flight[0].token.Done():
		case <-s.link.Lost():
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *session) waiting() (n uint64) {
	for _, b := range s.backlog {
		n += b.len()
	}
	return n
}

// note copies the session's counts to the stats.
func (s *session) note() {
	waiting, unsettled := s.waiting(), uint64(0)
	for _, x := range s.sent {
		unsettled += x.len()
	}
	s.u.note(func(st *Stats) {
		st.Inflight, st.Waiting, st.Unsettled, st.Hub = len(s.flight), waiting, unsettled, s.u.hub
		st.Published += s.published
		st.Resent += s.resent
		st.Skips += s.skips
	})
	s.published, s.resent, s.skips = 0, 0, 0
}

// short bounds a hub's name for logs.
func short(s string) string {
	if len(s) > 80 {
		s = s[:80]
	}
	return strings.ToValidUTF8(s, "?")
}
