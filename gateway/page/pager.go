package page

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// How the Pager sends.
const (
	attemptTimeout = 30 * time.Second // the longest one attempt may take
	markTimeout    = 5 * time.Second  // to write down an answer while stopping
	firstPause     = 2 * time.Second  // after the first failure, then doubling
	longestPause   = 5 * time.Minute
	giveUp         = 24 * time.Hour // an undeliverable page older than this is refused
	outboxPause    = time.Second    // after the outbox itself could not be used
)

// Pager sends what the outbox holds: for each channel one page at a time, the
// pages of one alarm in their order, with pauses that grow while a channel
// fails. A channel that hangs holds up only itself.
type Pager struct {
	channels []Channel
	outbox   Outbox
	log      *slog.Logger
	wake     map[string]chan struct{}
}

// NewPager returns a pager for the channels; log may be nil.
func NewPager(channels []Channel, outbox Outbox, log *slog.Logger) *Pager {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Pager{channels: channels, outbox: outbox, log: log, wake: map[string]chan struct{}{}}
	for _, c := range channels {
		p.wake[c.Name()] = make(chan struct{}, 1)
	}
	return p
}

// Wake tells the pager that pages were added. It never blocks.
func (p *Pager) Wake() {
	for _, w := range p.wake {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// Run sends until ctx ends, then returns nil after the attempts under way have
// been told to stop and their answers are written down. Pages for channels
// that the plan does not have any more are refused, in the journal too.
func (p *Pager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, c := range p.channels {
		wg.Go(func() { p.serve(ctx, c) })
	}
	p.orphans(ctx)
	wg.Wait()
	return nil
}

func (p *Pager) orphans(ctx context.Context) {
	all, err := p.outbox.Pending(ctx, "")
	if err != nil {
		p.log.Error("outbox not readable", "error", err)
		return
	}
	for _, e := range all {
		if _, ok := p.wake[e.Channel]; !ok {
			p.mark(ctx, Attempt{Key: e.Key(), At: time.Now(), Outcome: Refused,
				Answer: "channel " + e.Channel + " is no longer in page.yaml"})
		}
	}
}

// serve sends the pages of one channel.
func (p *Pager) serve(ctx context.Context, c Channel) {
	unwritten := map[string]Attempt{} // final answers the outbox has not taken yet
	for ctx.Err() == nil {
		pause := time.Duration(0) // 0: until woken
		entries, err := p.outbox.Pending(ctx, c.Name())
		if err != nil {
			if ctx.Err() == nil {
				p.log.Error("outbox not readable", "channel", c.Name(), "error", err)
			}
			pause = outboxPause
		}
		held := map[string]bool{} // alarms with an earlier page to go
		for _, e := range entries {
			if ctx.Err() != nil {
				return
			}
			if held[e.Message.ID] {
				continue
			}
			wait := time.Until(e.Next)
			if wait <= 0 {
				wait = p.send(ctx, c, e, unwritten)
			}
			if wait > 0 {
				held[e.Message.ID] = true
				if pause == 0 || wait < pause {
					pause = wait
				}
			}
		}
		p.rest(ctx, c.Name(), pause)
	}
}

// rest waits for pause, or for being woken; 0 is for ever.
func (p *Pager) rest(ctx context.Context, channel string, pause time.Duration) {
	var timer <-chan time.Time
	if pause > 0 {
		t := time.NewTimer(pause)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-p.wake[channel]:
	case <-timer:
	}
}

// send makes one attempt and returns how long the page must wait for the next,
// 0 when it is settled.
func (p *Pager) send(ctx context.Context, c Channel, e Entry, unwritten map[string]Attempt) time.Duration {
	key := e.Key()
	if a, ok := unwritten[key]; ok { // sent already; never again by this process
		if p.mark(ctx, a) != nil {
			return outboxPause
		}
		delete(unwritten, key)
		return time.Until(a.Next)
	}
	if p.mark(ctx, Attempt{Key: key, At: time.Now(), Outcome: Sending}) != nil {
		return outboxPause // unwritten means unsent: a kill now would send twice unmarked
	}
	m := e.Message
	m.MayRepeat = m.MayRepeat || e.Begun
	actx, cancel := context.WithTimeout(ctx, attemptTimeout)
	retry, err := c.Notify(actx, m)
	cancel()
	if err != nil && ctx.Err() != nil {
		return outboxPause // stopping: whether it arrived is not known; the next start says so
	}
	a := Attempt{Key: key, At: time.Now(), Outcome: Delivered}
	if err != nil {
		a.Outcome, a.Answer = Refused, err.Error()
		if retry && a.At.Sub(e.Created) < giveUp {
			a.Outcome, a.Next = Failed, a.At.Add(backoff(e.Attempts))
		}
		p.log.Warn("page not delivered", "channel", c.Name(), "alarm", e.Message.ID,
			"transition", string(m.Transition), "outcome", string(a.Outcome), "error", err)
	}
	mctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	if p.mark(mctx, a) != nil {
		unwritten[key] = a
		return outboxPause
	}
	return time.Until(a.Next)
}

func (p *Pager) mark(ctx context.Context, a Attempt) error {
	err := p.outbox.Mark(ctx, a)
	if err != nil && ctx.Err() == nil {
		p.log.Error("attempt not written down", "page", a.Key, "outcome", string(a.Outcome), "error", err)
	}
	return err
}

// backoff returns the pause after the failure of attempt n, from 0: doubling,
// each between a half and the whole so that channels do not beat in step.
func backoff(n int) time.Duration {
	d := longestPause
	if n < 8 {
		d = min(d, firstPause<<n)
	}
	return d/2 + rand.N(d/2)
}
