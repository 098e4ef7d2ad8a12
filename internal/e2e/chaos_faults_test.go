package e2e

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// chaosFault is a kind of fault. inject begins one; mend ends it; felt is asked
// at the end of the round, after everything has had time to tell.
type chaosFault struct {
	name   string
	inject func(*chaos) (mend func(), felt func() bool)

	injected, effective int
}

const (
	boardFull = "board's disk full"
	// clockStep is the fault whose effect only the stamps can tell, at the end.
	clockStep = "clock step"
)

func chaosFaults(c *chaos) []*chaosFault {
	faults := []*chaosFault{
		{name: "kill gatewayd", inject: (*chaos).killBoard},
		{name: "kill mosquitto", inject: (*chaos).killBroker},
		{name: "kill hubd", inject: (*chaos).killHub},
		{name: "kill influxd", inject: (*chaos).killHistory},
		{name: "cut board's link", inject: func(c *chaos) (func(), func() bool) { return c.cut(c.boardLink) }},
		{name: "cut hub's link", inject: func(c *chaos) (func(), func() bool) { return c.cut(c.hubLink) }},
		{name: "cut InfluxDB's link", inject: func(c *chaos) (func(), func() bool) { return c.cut(c.historyLink) }},
		{name: clockStep, inject: (*chaos).stepClock},
	}
	if c.boardDisk.mounted {
		faults = append(faults, &chaosFault{name: boardFull, inject: (*chaos).fillBoard})
	}
	if c.hubDisk.mounted {
		faults = append(faults, &chaosFault{name: "hub's disk full", inject: (*chaos).fillHub})
	}
	return faults
}

var (
	drewEpoch = regexp.MustCompile(`msg="records are on flash".* epoch=(\d+) upto=(\d+)`)
	lostFull  = regexp.MustCompile(`msg="records lost".*reason="buffer full"|flash refuses writes|no space left`)
	hubFull   = regexp.MustCompile(`no space left on device|disk is full`)
)

// killBoard ends gatewayd while it polls. What is not found later may be what
// it read in the last chaosCommit. Half of the time it is a reboot.
func (c *chaos) killBoard() (func(), func() bool) {
	before := c.plant.total()
	c.wait(300*time.Millisecond, 600*time.Millisecond)
	polled := c.plant.total() > before
	at := len(c.board.log.String())
	k := boardKill{}
	dead := killed(c.board)
	k.at = time.Now()
	// The poll and the write under way, and twice what the machine stood still.
	k.grace = 150*time.Millisecond + 2*c.stalls.worst(k.at.Add(-2*time.Second))
	if m := drewEpoch.FindAllStringSubmatch(c.board.log.String()[:at], -1); len(m) > 0 {
		k.epoch, _ = strconv.ParseUint(m[len(m)-1][1], 10, 64)
		k.upto, _ = strconv.ParseUint(m[len(m)-1][2], 10, 64)
	}
	c.kills = append(c.kills, k)
	if c.rng.IntN(2) == 0 {
		c.reboot()
	}
	return c.board.start, func() bool { return dead && polled }
}

// killBroker is felt when the board noticed.
func (c *chaos) killBroker() (func(), func() bool) {
	was := strings.Count(c.board.log.String(), `msg="uplink is down"`)
	dead := killed(c.broker)
	return c.broker.start, func() bool {
		return dead && strings.Count(c.board.log.String(), `msg="uplink is down"`) > was
	}
}

// killHub is felt when the plant was read while it was gone.
func (c *chaos) killHub() (func(), func() bool) {
	was := c.plant.total()
	dead, during := killed(c.hub), 0
	c.hubKilled = true
	return func() { during = c.plant.total() - was; c.hub.start() }, func() bool { return dead && during > 0 }
}

// killHistory is felt when the hub could not store.
func (c *chaos) killHistory() (func(), func() bool) {
	const say = `msg="store does not take what came`
	was := strings.Count(c.hub.log.String(), say)
	dead := killed(c.history)
	return c.history.start, func() bool { return dead && strings.Count(c.hub.log.String(), say) > was }
}

// cut takes a link away: with a reset, or in silence, after which what was held
// back arrives late or the connections are found dead.
func (c *chaos) cut(l *chaosLink) (func(), func() bool) {
	was := l.felt()
	breaking := c.rng.IntN(2) == 0
	if c.rng.IntN(2) == 0 {
		l.set(linkReset, true)
	} else {
		l.set(linkSilent, false)
	}
	return func() { l.set(linkWhole, breaking) }, func() bool { return l.felt() > was }
}

// fillBoard leaves no room on the board's file system and cuts its link, so
// that its records must stay there. Half of the time it is killed and started
// anew on the full disk, some times. It is felt when gatewayd had to give up
// records, or said that the disk is full.
func (c *chaos) fillBoard() (func(), func() bool) {
	was := len(lostFull.FindAllString(c.board.log.String(), -1))
	felt := func() bool { return len(lostFull.FindAllString(c.board.log.String(), -1)) > was }
	c.boardLink.set(linkReset, true)
	c.wait(0, 3*time.Second)
	full, err := c.boardDisk.fill()
	if err != nil {
		c.t.Errorf("fill the board's disk: %v", err)
	}
	if c.rng.IntN(2) == 0 {
		for range 1 + c.rng.IntN(3) {
			mend, _ := c.killBoard()
			mend()
			c.wait(time.Second, 4*time.Second)
		}
	} else { // until the segment that it has is full
		for end := time.Now().Add(25 * time.Second); !felt() && time.Now().Before(end); {
			c.wait(500*time.Millisecond, time.Second)
		}
	}
	return func() {
		c.boardLink.set(linkWhole, false)
		if err := c.boardDisk.empty(); err != nil {
			c.t.Errorf("empty the board's disk: %v", err)
		}
	}, func() bool { return full && felt() }
}

// fillHub leaves no room for the hub's books. It is felt when the hub said so.
func (c *chaos) fillHub() (func(), func() bool) {
	was := len(hubFull.FindAllString(c.hub.log.String(), -1))
	felt := func() bool { return len(hubFull.FindAllString(c.hub.log.String(), -1)) > was }
	full, err := c.hubDisk.fill()
	if err != nil {
		c.t.Errorf("fill the hub's disk: %v", err)
	}
	for end := time.Now().Add(15 * time.Second); !felt() && time.Now().Before(end); {
		c.wait(300*time.Millisecond, 600*time.Millisecond)
	}
	return func() {
		if err := c.hubDisk.empty(); err != nil {
			c.t.Errorf("empty the hub's disk: %v", err)
		}
	}, func() bool { return full && felt() }
}

// wait lets real processes work for a random time.
func (c *chaos) wait(least, most time.Duration) {
	time.Sleep(least + time.Duration(c.rng.Int64N(int64(most-least)+1))) // the fault itself lasts
}

// deck deals the faults so that each comes as often as the others.
type deck struct {
	rng    *rand.Rand
	faults []*chaosFault
	left   []*chaosFault
}

func (d *deck) draw() *chaosFault {
	if len(d.left) == 0 {
		d.left = append(d.left, d.faults...)
		d.rng.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	f := d.left[0]
	d.left = d.left[1:]
	return f
}

// round injects one fault or two at a time, lets them last, mends them in any
// order and gives everything a moment.
func (c *chaos) round(n int, d *deck) {
	faults := []*chaosFault{d.draw()}
	if n > len(d.faults) && c.rng.IntN(3) == 0 { // first each alone
		if f := d.draw(); f != faults[0] {
			faults = append(faults, f)
		}
	}
	if n <= len(d.faults) || slices.ContainsFunc(faults, func(f *chaosFault) bool { return f.name == boardFull }) {
		c.calm() // else what this fault does is that of the rounds before
	}
	type broken struct {
		f    *chaosFault
		mend func()
		felt func() bool
	}
	var now []broken
	names := []string{}
	for _, f := range faults {
		mend, felt := f.inject(c)
		f.injected++
		now = append(now, broken{f, mend, felt})
		names = append(names, f.name)
	}
	if c.rng.IntN(10) == 0 {
		c.wait(4*time.Second, 8*time.Second)
	} else {
		c.wait(300*time.Millisecond, 2500*time.Millisecond)
	}
	c.rng.Shuffle(len(now), func(i, j int) { now[i], now[j] = now[j], now[i] })
	for _, b := range now {
		b.mend()
		c.wait(0, 300*time.Millisecond)
	}
	c.wait(time.Second, 2500*time.Millisecond)
	told := []string{}
	for _, b := range now {
		if b.felt() {
			if b.f.name != clockStep {
				b.f.effective++
			}
		} else {
			told = append(told, b.f.name)
		}
	}
	c.t.Logf("round %d: %s%s, %d served", n, strings.Join(names, " and "), notFelt(told), c.plant.total())
	c.checkAlive()
}

// calm waits until what is read is stored.
func (c *chaos) calm() {
	c.t.Helper()
	stored := func() (n uint64) {
		books, err := c.ledger()
		if err != nil {
			return 0
		}
		for _, b := range books {
			n += b.Stored
		}
		return n
	}
	was := uint64(0)
	eventually(c.t, 3*time.Minute, "the line works again", func() bool {
		now := stored()
		grew := was > 0 && now > was
		was = now
		return grew
	})
}

func notFelt(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf(" (not felt: %s)", strings.Join(names, ", "))
}
