package stamp

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

const (
	sec  = int64(time.Second)
	hour = 3600 * sec
)

var (
	build = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	began = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC).UnixNano()
)

// memFile loses at a power cut what was not synced, whole or in part.
type memFile struct {
	live, flash []byte
	pending     []int64 // offsets of writes since the last sync
	fail        error
	syncs       int
}

func newMemFile() *memFile {
	return &memFile{live: make([]byte, 2*slotSize), flash: make([]byte, 2*slotSize)}
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if n := copy(p, f.live[off:]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fail != nil {
		return 0, f.fail
	}
	copy(f.live[off:], p)
	for at := off; at < off+int64(len(p)); at += 512 {
		f.pending = append(f.pending, at)
	}
	return len(p), nil
}

func (f *memFile) Sync() error {
	if f.fail != nil {
		return f.fail
	}
	copy(f.flash, f.live)
	f.pending = nil
	f.syncs++
	return nil
}

func (f *memFile) Close() error { return nil }

func (f *memFile) powerCut(r *rand.Rand) {
	for _, at := range f.pending {
		if r.IntN(2) == 0 {
			copy(f.flash[at:at+512], f.live[at:at+512])
		}
	}
	copy(f.live, f.flash)
	f.pending = nil
}

// rec is one record of the world.
type rec struct {
	epoch, seq uint64
	boot       string
	series     string
	raw        wire.Stamp
	truth      int64 // when it was really polled
	onFlash    bool
	published  *wire.Stamp
}

// world is a board, its clocks and the true time.
type world struct {
	t    *testing.T
	k    *Keeper
	file *memFile
	cfg  Config

	truth  int64 // now
	zero   int64 // true time of this boot's beginning
	boots  int
	wrong  int64 // the system's clock less the truth
	sync   bool
	rtc    *int64 // the battery clock less the truth; nil: there is none
	epoch  uint64
	seq    uint64
	queue  []*rec // in the order of polling
	liveAt int    // index in queue from which live publishes
	up     bool
	stamps map[string]*rec // by series and stamp

	vouched     []voucher // what a source may have vouched for
	vouchedLast int64
}

// voucher is an offset that the clock showed in a boot while NTP or a battery
// clock was there.
type voucher struct {
	boot string
	off  int64
}

func (w *world) Now() time.Time           { return time.Unix(0, w.truth+w.wrong) }
func (w *world) SinceBoot() time.Duration { return time.Duration(w.truth - w.zero) }
func (w *world) BootID() string           { return fmt.Sprint("boot-", w.boots) }
func (w *world) Synchronised() bool {
	// A battery clock is read once a second only.
	if off := w.wrong + w.zero; off != w.vouchedLast && (w.sync || w.rtc != nil || w.k.rtcGood) {
		w.vouched, w.vouchedLast = append(w.vouched, voucher{w.BootID(), off}), off
	}
	return w.sync
}
func (w *world) RTC() (time.Time, bool) {
	if w.rtc == nil {
		return time.Time{}, false
	}
	return time.Unix((w.truth+*w.rtc)/sec, 0), true
}

func newWorld(t *testing.T, trust ...string) *world {
	w := &world{t: t, file: newMemFile(), truth: began, stamps: map[string]*rec{}}
	w.cfg = Config{Clock: w, Trust: trust, Hold: 30 * time.Second, Build: build}
	w.boot(0)
	return w
}

// boot begins a boot whose system clock is wrong by so much.
func (w *world) boot(wrong int64) {
	w.boots++
	w.zero, w.truth = w.truth, w.truth+5*sec
	w.wrong, w.sync, w.vouchedLast = wrong, false, 0
	w.start()
}

// powerCut loses what is not on flash; away is how long the board is off.
func (w *world) powerCut(r *rand.Rand, away, wrong int64) {
	w.file.powerCut(r)
	w.lose()
	w.truth += away
	w.boot(wrong)
}

func (w *world) lose() {
	w.queue = slices.DeleteFunc(w.queue, func(x *rec) bool { return !x.onFlash })
}

// start is gatewayd's.
func (w *world) start() {
	w.truth += sec // whole, so that without residues stamps would collide; no process starts in under 1 ms
	w.cfg.File = w.file
	k, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.k, w.up = k, false
	w.epoch, w.seq = w.epoch+1, 0
	var past []Past
	for i, x := range w.queue {
		if i+1 == len(w.queue) || w.queue[i+1].boot != x.boot {
			past = append(past, Past{x.boot, x.epoch, x.seq, x.raw})
		}
	}
	w.poll("(end)")
	k.Start(past)
	w.liveAt = len(w.queue)
}

func (w *world) poll(series string) *rec {
	w.seq++
	x := &rec{epoch: w.epoch, seq: w.seq, boot: w.BootID(), series: series, raw: w.k.Poll(series, 0), truth: w.truth}
	w.queue = append(w.queue, x)
	return x
}

// polls polls n times, every.
func (w *world) polls(n int, every int64) {
	for range n {
		w.pass(every)
		w.poll("a")
	}
}

// pass lets time pass.
func (w *world) pass(d int64) {
	for step := int64(0); d > 0; d -= step {
		step = min(d, max(sec, d/50/sec*sec))
		w.truth += step
		w.k.watch()
	}
}

func (w *world) connect() {
	w.up = true
	w.liveAt = len(w.queue)
	w.k.Connected()
}

func (w *world) commitFlash() {
	for _, x := range w.queue {
		x.onFlash = true
	}
}

// publish publishes a record and checks what must hold; false: it waits.
func (w *world) publish(x *rec) bool {
	w.t.Helper()
	s, ok := w.k.Stamp(x.boot, x.epoch, x.seq, x.raw)
	if !ok {
		if x.published != nil {
			w.t.Fatalf("%d/%d was published and waits", x.epoch, x.seq)
		}
		return false
	}
	if x.published != nil && *x.published != s {
		w.t.Fatalf("%d/%d was %+v and is %+v", x.epoch, x.seq, *x.published, s)
	}
	x.published = &s
	w.rests(x)
	key := fmt.Sprint(x.series, " ", s.Time)
	if y := w.stamps[key]; y != nil && (y.epoch != x.epoch || y.seq != x.seq) {
		w.t.Fatalf("%d/%d and %d/%d of series %s are both stamped %d", y.epoch, y.seq, x.epoch, x.seq, x.series, s.Time)
	}
	w.stamps[key] = x
	if len(w.file.pending) > 0 {
		w.t.Fatal("published before the bases were synced")
	}
	return true
}

// rests checks that a stamp rests on what its code says, by the record itself.
func (w *world) rests(x *rec) {
	w.t.Helper()
	off := x.published.Time - int64(x.raw.Mono)
	same := func(o int64) bool { return apart(o, off) <= tolerance+time.Microsecond }
	ok := true
	switch x.published.Clock {
	case telemetry.ClockTrusted:
		ok = (x.raw.Clock == synchronised || x.raw.Clock == battery) && same(x.raw.Time-int64(x.raw.Mono))
	case telemetry.ClockMonotonic:
		ok = x.raw.Clock != synchronised && slices.ContainsFunc(w.vouched, func(v voucher) bool { return v.boot == x.boot && same(v.off) })
	default: // only when no clock can be followed any more
		ok = x.raw.Clock != synchronised || slices.ContainsFunc(w.k.bases, func(b *basis) bool { return b.Forced })
	}
	if !ok {
		w.t.Fatalf("%d/%d showed %+v and was published as %+v: not what its clock code says", x.epoch, x.seq, x.raw, *x.published)
	}
}

// all publishes everything, oldest first, and returns how many wait.
func (w *world) all() (waiting int) {
	w.t.Helper()
	for _, x := range w.queue {
		if !w.publish(x) {
			waiting++
		}
	}
	return waiting
}

// flashSays is what FORMAT.md says of a record, from the bytes alone.
func flashSays(flash []byte) func(*rec) (wire.Stamp, bool) {
	d, serial, _ := decode(flash[:slotSize])
	if e, s, _ := decode(flash[slotSize:]); s > serial {
		d = e
	}
	return func(x *rec) (wire.Stamp, bool) {
		for _, b := range d.Bases {
			gap := x.raw.Time - int64(x.raw.Mono) - b.Off
			fits := x.raw.Clock != 0
			if b.Code == 0 {
				fits = x.raw.Clock <= 1 && max(gap, -gap) <= 10e6
			}
			if b.Epoch == x.epoch && b.First <= x.seq && x.seq <= b.Last && (fits || b.Forced) {
				t := int64(x.raw.Mono) + b.Off
				return wire.Stamp{Time: t - (t%1000+1000)%1000 + int64(b.Res), Clock: b.Code, Mono: x.raw.Mono}, true
			}
		}
		return wire.Stamp{}, false
	}
}

var seeds = flag.Uint64("stamp.seeds", 12, "random worlds of each kind; 500 take half a minute of a core")

// TestWhateverHappens: random polls, publishes on two lanes, resends, cuts,
// restarts, power cuts, steps of the clock. In honest worlds the clock is right
// whenever it says so; in the others it lies at will.
func TestWhateverHappens(t *testing.T) {
	for seed := range *seeds {
		for _, honest := range []bool{true, false} {
			for _, coarse := range []bool{true, false} {
				t.Run(fmt.Sprintf("seed %d honest %v coarse %v", seed, honest, coarse), func(t *testing.T) {
					happen(t, rand.New(rand.NewPCG(seed, 7)), honest, coarse)
				})
			}
		}
	}
}

// happen is one world. With coarse all happens at whole seconds, so that what
// is not kept apart on purpose does collide.
func happen(t *testing.T, r *rand.Rand, honest, coarse bool) {
	any := func(below int64) int64 {
		if coarse {
			return r.Int64N(below/sec+1) * sec
		}
		return r.Int64N(below)
	}
	w := newWorld(t, "adjtimex", "rtc", "hub")
	counts := map[telemetry.Clock]int{}
	wrongs := []int64{0, -hour, hour, -3 * sec, -sec, -60 * sec, 0, 0}
	if !coarse {
		wrongs = []int64{0, -hour, hour, -50e6, 50e6, 20e6, -3 * sec, 5, -7}
	}
	anyWrong := func() int64 {
		if r.IntN(8) == 0 {
			return -w.truth + 5*sec // 1970
		}
		return wrongs[r.IntN(len(wrongs))]
	}
	hub := int64(0)
	for range 600 {
		switch r.IntN(25) {
		case 0: // a step, by hand
			if w.wrong = anyWrong(); honest {
				w.sync = false
			}
		case 1: // NTP comes
			if w.sync = true; honest {
				w.wrong = any(2e6) % sec
			}
		case 2:
			w.sync = false
		case 3:
			w.up = false
		case 4:
			w.connect()
		case 5:
			if err := w.k.Close(); err != nil {
				t.Fatal(err)
			}
			w.start()
		case 6: // killed; what is in the page cache stays
			if r.IntN(2) == 0 {
				w.lose()
			}
			w.start()
		case 7:
			w.powerCut(r, any([]int64{10 * sec, 2 * hour}[r.IntN(2)]), anyWrong())
		case 8:
			w.commitFlash()
		case 9: // the hub has stored what was published
			var left []*rec
			for i, x := range w.queue {
				if x.published == nil || r.IntN(3) == 0 {
					left = append(left, x)
				} else if i < w.liveAt {
					w.liveAt--
				}
			}
			w.queue = left
			w.liveAt = min(max(w.liveAt, 0), len(left))
			epochs, boots := map[uint64]uint64{w.epoch: w.seq + 1}, []string{w.BootID()}
			for _, x := range slices.Backward(left) {
				epochs[x.epoch], boots = x.seq, append(boots, x.boot)
			}
			w.k.forget(epochs, boots)
		case 10: // a hub that lies
			if !honest {
				hub = anyWrong()
			}
		case 11, 12:
			if w.up {
				w.k.HubTime(time.Unix(0, w.truth+hub-any(300e6)%sec), 0)
			}
		case 13:
			rtc := anyWrong()
			if honest {
				rtc = r.Int64N(sec)
			}
			if w.rtc = &rtc; r.IntN(2) == 0 {
				w.rtc = nil
			}
		case 14: // a long while
			w.pass(any(6 * hour))
		case 15, 16: // backlog
			for i := 0; w.up && i < min(w.liveAt, 40); i++ {
				w.publish(w.queue[i])
			}
		case 17: // live skips
			w.liveAt = len(w.queue)
		case 18: // sent again
			for _, x := range w.queue {
				if x.published != nil && w.up {
					w.publish(x)
				}
			}
		case 20: // NTP leaves right after it came or, where it lies, after a step; perhaps gatewayd is killed before that is out
			if w.sync, w.wrong = true, any(2e6)%sec; !honest {
				w.wrong = anyWrong()
			}
			w.pass(any(3*sec) + 1)
			for range r.IntN(4) {
				w.poll("a")
				w.pass(sec)
			}
			w.sync, w.wrong = false, anyWrong()
			for range r.IntN(6) {
				w.poll("a")
				w.pass(sec)
			}
			if r.IntN(3) == 0 {
				w.start()
			}
		case 19: // two at the same moment
			w.poll("a")
			w.poll("a")
		default:
			for range r.IntN(12) {
				w.pass(any(3 * sec))
				w.poll([]string{"a", "b"}[r.IntN(2)])
				for w.up && w.liveAt < len(w.queue) && w.publish(w.queue[w.liveAt]) {
					w.liveAt++
				}
			}
		}
		if r.IntN(20) == 0 {
			says := flashSays(w.file.flash)
			for _, x := range w.queue {
				if x.published == nil {
					continue
				}
				if s, ok := says(x); !ok || s != *x.published {
					t.Fatalf("%d/%d was published as %+v; flash says %+v, %v", x.epoch, x.seq, *x.published, s, ok)
				}
			}
		}
	}
	// In the end all goes out, whatever is known.
	w.connect()
	w.pass(31 * sec)
	if n := w.all(); n > 0 {
		t.Errorf("%d records wait for ever", n)
	}
	var before *rec
	for _, x := range w.queue {
		counts[x.published.Clock]++
		if before != nil && before.boot == x.boot && before.series == x.series && honest &&
			before.published.Clock <= 1 && x.published.Clock <= 1 && x.published.Time <= before.published.Time && x.truth-before.truth > 3e9 {
			t.Errorf("%d/%d is not after %d/%d", x.epoch, x.seq, before.epoch, before.seq)
		}
		before = x
	}
	for _, x := range w.stamps {
		if off := time.Duration(x.published.Time - x.truth).Abs(); honest && off > bound(x.published.Clock) {
			t.Errorf("%d/%d with clock %d is off by %v", x.epoch, x.seq, x.published.Clock, off)
		}
	}
	t.Logf("%d stamps, %d boots, %d syncs, bases %d, by clock code %v", len(w.stamps), w.boots, w.file.syncs, len(w.k.bases), counts)
}

// bound is that of docs/time.md, for sources that are themselves right to 2 ms
// (NTP), 2 s (battery, which the system's clock follows) and 0.3 s late (hub),
// and a crystal without error.
func bound(c telemetry.Clock) time.Duration {
	switch c {
	case telemetry.ClockTrusted, telemetry.ClockMonotonic:
		return 3*time.Second + 10*time.Millisecond
	case telemetry.ClockHub:
		return 800 * time.Millisecond
	}
	return 1<<63 - 1
}
