package stamp

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"luquan/gateway/telemetry"
)

// told lists the codes of the device's records in order, with how far each
// run of them is off: "1x18 0s, 0x5 0s". What waits is "-".
func (w *world) told() (out string) {
	w.t.Helper()
	type run struct {
		code string
		n    int
		off  time.Duration
	}
	var runs []run
	for _, x := range w.queue {
		if x.series == "(end)" {
			continue
		}
		r := run{"-", 1, 0}
		if w.publish(x) {
			r.code = fmt.Sprint(x.published.Clock)
			r.off = time.Duration(x.published.Time - x.truth).Round(10 * time.Millisecond)
		}
		if n := len(runs); n > 0 && runs[n-1].code == r.code && runs[n-1].off == r.off {
			runs[n-1].n++
			continue
		}
		runs = append(runs, r)
	}
	for i, r := range runs {
		if i > 0 {
			out += ", "
		}
		out += fmt.Sprintf("%sx%d", r.code, r.n)
		if r.code != "-" {
			out += " " + r.off.String()
		}
	}
	return out
}

func (w *world) expect(want string) {
	w.t.Helper()
	if got := w.told(); got != want {
		w.t.Errorf("got  %s\nwant %s", got, want)
	}
}

func (w *world) ntp() { w.sync, w.wrong = true, 0 }

// TestCases is the table of docs/time.md.
func TestCases(t *testing.T) {
	all := []string{"adjtimex", "rtc", "hub"}
	for _, tt := range []struct {
		name string
		do   func(w *world)
		want string
	}{
		{"NTP from the start", func(w *world) { w.ntp(); w.polls(20, 10*sec) }, "0x20 0s"},
		{"NTP after 3 min, no link before", func(w *world) {
			w.wrong = -1000 * hour
			w.polls(18, 10*sec)
			w.ntp()
			w.polls(5, 10*sec)
		}, "1x18 0s, 0x5 0s"},
		{"waits within hold", func(w *world) { w.connect(); w.polls(2, 10*sec) }, "-x2"},
		{"hold over", func(w *world) { w.wrong = -2000 * hour; w.connect(); w.polls(4, 10*sec) /* counts on from its start */ }, "3x4 0s"},
		{"hold counts from connecting", func(w *world) { w.polls(100, 10*sec); w.connect(); w.polls(2, 10*sec) }, "-x102"},
		{"hold begins anew with a connection", func(w *world) { w.connect(); w.polls(2, 10*sec); w.connect(); w.polls(2, 10*sec) }, "-x4"},
		{"hold runs out once", func(w *world) {
			w.connect()
			w.polls(4, 10*sec)
			w.told()
			w.connect()
			w.polls(1, sec)
		}, "3x5 0s"},
		{"learnt after clock=3 was published", func(w *world) {
			w.wrong = -hour
			w.restart(true)
			w.connect()
			w.polls(4, 10*sec)
			w.told()
			w.polls(3, 10*sec) // not yet out
			w.ntp()
			w.polls(2, 10*sec)
		}, "3x4 -1h0m0s, 1x3 0s, 0x2 0s"},
		{"hub only", func(w *world) {
			w.wrong = -hour
			w.polls(5, 10*sec)
			w.k.HubTime(time.Unix(0, w.truth-200e6), 100*time.Millisecond)
			w.polls(5, 10*sec)
		}, "2x10 -150ms"},
		{"the hub never where NTP is", func(w *world) {
			w.ntp()
			w.k.HubTime(time.Unix(0, w.truth-hour), 0)
			w.polls(3, sec)
		}, "0x3 0s"},
		{"a source that is not trusted", func(w *world) {
			w.k.cfg.Trust = []string{"hub"}
			w.ntp()
			w.polls(3, sec)
		}, "-x3"},
		{"battery clock right", func(w *world) { w.battery(0); w.polls(5, 10*sec) }, "0x5 0s"},
		{"battery clock at 1970", func(w *world) {
			w.battery(5 - w.truth)
			w.wrong = 5 - w.truth
			w.polls(5, 10*sec)
		}, "-x5"},
		{"battery clock before the last stamp", func(w *world) {
			w.ntp()
			w.polls(3, 10*sec)
			w.told()
			w.commitFlash()
			w.battery(-hour)
			w.powerCut(rand.New(rand.NewPCG(1, 1)), 60*sec, -hour)
			w.polls(2, sec)
		}, "0x3 0s, -x2"},
		{"battery clock that the system did not take", func(w *world) { w.battery(0); w.wrong = -10 * sec; w.polls(2, sec) }, "-x2"},
		{"battery clock that the hub contradicts", func(w *world) {
			w.battery(hour)
			w.wrong = hour
			w.polls(5, 10*sec)
			w.k.HubTime(time.Unix(0, w.truth), 0)
			w.polls(5, 10*sec)
		}, "2x10 0s"},
		{"NTP after the battery clock", func(w *world) {
			w.battery(sec)
			w.wrong = sec
			w.polls(5, 10*sec)
			w.ntp()
			w.polls(5, 10*sec)
		}, "1x5 0s, 0x5 0s"},
		{"NTP lost, no hub", func(w *world) {
			w.ntp()
			w.polls(1, sec)
			w.sync, w.wrong = false, -hour // and set by hand
			w.polls(25, 3500*sec)
		}, "0x1 0s, 1x24 0s, -x1"},
		{"NTP lost, hub there", func(w *world) {
			w.ntp()
			w.polls(1, sec)
			w.sync, w.wrong = false, -hour
			w.k.HubTime(time.Unix(0, w.truth-100e6), 0)
			w.polls(3, 3000*sec)
		}, "0x1 0s, 1x1 0s, 2x2 0s"},
		{"set back and forth while synchronised", func(w *world) {
			w.ntp()
			w.polls(3, sec)
			w.wrong = -hour
			w.polls(3, sec)
			w.wrong = hour
			w.polls(3, sec)
			w.wrong = 0
			w.polls(3, sec)
		}, "0x3 0s, 0x3 -1h0m0s, 0x3 1h0m0s, 0x3 0s"},
		{"set to 1970 while synchronised", func(w *world) {
			w.ntp()
			w.polls(3, sec)
			w.wrong = 5 - w.truth
			w.polls(3, sec)
		}, "0x3 0s, 1x3 0s"},
		{"restarted in one boot", func(w *world) {
			w.ntp()
			w.polls(3, sec)
			w.told()
			w.restart(false)
			w.polls(3, sec)
			w.sync = false
			w.restart(false)
			w.polls(3, sec)
		}, "0x6 0s, 1x3 0s"},
		{"learnt late, power cut before any link", func(w *world) {
			w.wrong = -hour
			w.restart(true)
			w.polls(3, sec)
			w.ntp()
			w.polls(2, sec)
			w.sync = false
			w.polls(2, sec)
			w.commitFlash()
			w.powerCut(rand.New(rand.NewPCG(1, 1)), hour, -5*hour)
			w.connect()
		}, "1x3 0s, 0x2 0s, 1x2 0s"},
		{"stepped back, then right but not synchronised, killed before that is out", func(w *world) {
			w.ntp()
			w.polls(3, sec)
			w.told()
			w.wrong = -50 * sec
			w.polls(3, sec)
			w.sync, w.wrong = false, 0
			w.polls(3, sec)
			w.restart(false)
		}, "0x3 0s, 0x3 -50s, 1x3 -50s"},
		{"the same, and the live lane passed it over", func(w *world) {
			w.ntp()
			w.polls(3, sec)
			w.told()
			w.wrong = -50 * sec
			w.polls(3, sec)
			w.sync, w.wrong = false, 0
			w.polls(3, sec)
			w.ntp()
			w.polls(1, sec)
			w.publish(w.queue[len(w.queue)-1])
		}, "0x3 0s, 0x3 -50s, 1x3 0s, 0x1 0s"},
		{"synchronised again, killed before that is out", func(w *world) {
			w.ntp()
			w.polls(3, sec)
			w.sync = false
			w.polls(3, sec)
			w.told()
			w.ntp()
			w.polls(3, sec)
			w.restart(false)
		}, "0x3 0s, 1x3 0s, 0x3 0s"},
		{"learnt after clock=3 was published, killed before the rest is out", func(w *world) {
			w.wrong = -hour
			w.restart(true)
			w.connect()
			w.polls(4, 10*sec)
			w.told()
			w.polls(3, 10*sec)
			w.ntp()
			w.polls(2, 10*sec)
			w.restart(false)
		}, "3x4 -1h0m0s, 1x3 0s, 0x2 0s"},
		{"the hub heard after clock=3 was published, killed before the rest is out", func(w *world) {
			w.wrong = -hour
			w.restart(true)
			w.connect()
			w.polls(4, 10*sec)
			w.told()
			w.polls(3, 10*sec)
			w.k.HubTime(time.Unix(0, w.truth), 0)
			w.k.watch()
			w.restart(false)
		}, "3x4 -1h0m0s, 2x3 0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, all...)
			tt.do(w)
			w.expect(tt.want)
			w.restart(false) // and ever after
			w.connect()
			for _, x := range w.queue {
				if x.published != nil {
					w.publish(x)
				}
			}
		})
	}
}

// battery gives the board a battery clock that is wrong by so much.
func (w *world) battery(wrong int64) { w.rtc = &wrong }

// restart starts gatewayd again; anew forgets what earlier runs knew, as if
// this were the board's first boot.
func (w *world) restart(anew bool) {
	if anew {
		w.file = newMemFile()
		w.queue = nil
	}
	w.start()
}

// TestPlacedBetweenNeighbours: boots that never learnt the time.
func TestPlacedBetweenNeighbours(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, blind := range []int{1, 2} {
		// How the system's clock of the blind boots stands: at 1970, somewhat
		// late, or hours ahead so that it would run into the next boot.
		for _, wrong := range []int64{5 - began, -20 * sec, 5 * hour} {
			t.Run(fmt.Sprintf("%d blind, wrong by %v", blind, time.Duration(wrong)), func(t *testing.T) {
				w := newWorld(t, "adjtimex")
				w.ntp()
				w.polls(10, 10*sec)
				w.told()
				for range blind {
					w.commitFlash()
					w.powerCut(r, 300*sec, wrong)
					w.polls(10, 10*sec)
				}
				w.commitFlash()
				w.powerCut(r, 300*sec, 5-began)
				w.polls(1, sec)
				w.ntp()
				w.polls(1, sec)
				if n := w.all(); n > 0 {
					t.Fatalf("%d wait though the time is known", n)
				}
				var before *rec
				for _, x := range w.queue {
					s := *x.published
					if c := s.Clock; (c == telemetry.ClockUnsure) != (x.boot != "boot-1" && x.boot != w.BootID()) {
						t.Errorf("%s of %s has clock %d", x.series, x.boot, c)
					}
					if before != nil && s.Time <= before.published.Time {
						t.Errorf("%d/%d %v is not after %d/%d %v", x.epoch, x.seq, time.Unix(0, s.Time), before.epoch, before.seq, time.Unix(0, before.published.Time))
					}
					if before != nil && before.boot == x.boot {
						if d := time.Duration(s.Time - before.published.Time - (x.truth - before.truth)).Abs(); d > time.Microsecond {
							t.Errorf("%d/%d: the distance to the one before is wrong by %v", x.epoch, x.seq, d)
						}
					}
					before = x
				}
			})
		}
	}
}

// TestSetBackTooOften: with every residue spent the count goes on, marked.
func TestSetBackTooOften(t *testing.T) {
	w := newWorld(t, "adjtimex")
	w.ntp()
	for i := range int64(residues + 50) {
		w.wrong = -i * 7 * sec // each time back over what was there
		w.polls(3, sec)
		for _, x := range w.queue[len(w.queue)-3:] {
			w.publish(x)
		}
		if n := uint64(30); w.seq > n { // the hub keeps pace
			w.k.forget(map[uint64]uint64{w.epoch: w.seq - n}, []string{w.BootID()})
		}
	}
	last := w.queue[len(w.queue)-1]
	if last.published.Clock != telemetry.ClockUnsure {
		t.Errorf("clock %d after the clock was set back %d times", last.published.Clock, (residues + 50))
	}
	if w.wrong = 100 * hour; true { // ahead of everything: believed again
		w.polls(1, sec)
		w.publish(w.queue[len(w.queue)-1])
	}
	if last = w.queue[len(w.queue)-1]; last.published.Clock != telemetry.ClockTrusted {
		t.Errorf("clock %d after it was set forward", last.published.Clock)
	}
	if n := w.file.syncs; n > 4*(residues+50) {
		t.Errorf("%d syncs", n)
	}
	w.queue = w.queue[len(w.queue)-31:] // what the hub has not committed
	for range 2 {
		w.restart(false)
		for _, x := range w.queue {
			if x.published != nil {
				w.publish(x)
			}
		}
	}
}

// TestNoStealing: a basis that grows never takes what a newer one has published.
func TestNoStealing(t *testing.T) {
	w := newWorld(t, "adjtimex", "hub")
	at := func(i int) *rec { return w.queue[i] }
	w.k.HubTime(time.Unix(0, w.truth), 0)
	w.polls(60, sec)
	w.publish(at(1)) // hub, and reserved far ahead
	w.ntp()          // within the hour: NTP's is better
	w.pass(sec)
	w.sync = false
	w.publish(at(50))
	w.restart(false)
	w.k.now.NTP = nil // so that the hub's is the best again
	for i := 2; i < 49; i++ {
		w.publish(at(i))
	}
	for i := range 61 {
		w.publish(at(i))
	}
	w.restart(false)
	w.all()
}

// TestNoStealingAcross: nor does one that reaches over a newer basis for a
// record that does not fit it.
func TestNoStealingAcross(t *testing.T) {
	w := newWorld(t, "adjtimex")
	w.ntp()
	w.polls(5, sec)
	w.all()
	w.wrong = -hour
	w.pass(sec)
	w.sync = false
	w.polls(30, sec) // by the clock that was set back, clock=1
	x := w.queue[len(w.queue)-10]
	w.k.cfg.Clock = stepped{w} // one of them was polled while the clock was right
	x.raw = w.k.Poll("a", 0)
	w.truth += 1e6
	w.k.cfg.Clock = w
	w.k.now.NTP.Off = w.zero - hour
	for _, y := range w.queue {
		if y != x {
			w.publish(y)
		}
	}
	w.publish(x)
	w.restart(false)
	w.all()
}

// stepped is a clock that is right and synchronised, whatever the world's is.
type stepped struct{ *world }

func (s stepped) Now() time.Time     { return time.Unix(0, s.truth) }
func (s stepped) Synchronised() bool { return true }

var hours = flag.Int("stamp.hours", 24, "how long TestSyncs runs")

// TestSyncs: ten records a second under a trusted clock.
func TestSyncs(t *testing.T) {
	w := newWorld(t, "adjtimex")
	w.ntp()
	begin := w.file.syncs
	for s := range *hours * 3600 {
		w.truth += sec
		for i := range 10 {
			w.seq++
			if _, ok := w.k.Stamp(w.BootID(), w.epoch, w.seq, w.k.Poll(string(rune('a'+i)), 0)); !ok {
				t.Fatal("waits")
			}
		}
		if s%60 == 0 {
			w.k.watch()
		}
	}
	n := w.file.syncs - begin
	t.Logf("%d syncs in %d hours", n, *hours)
	if most := 12 + 3**hours; n > most {
		t.Errorf("%d syncs in %d hours, want at most %d", n, *hours, most)
	}
}

// BenchmarkStamp is one record, polled and published.
func BenchmarkStamp(b *testing.B) {
	w := newWorld(&testing.T{}, "adjtimex")
	w.ntp()
	for b.Loop() {
		w.seq++
		w.truth += sec
		if _, ok := w.k.Stamp(w.BootID(), w.epoch, w.seq, w.k.Poll("a", 0)); !ok {
			b.Fatal("waits")
		}
	}
}
