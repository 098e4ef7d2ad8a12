package powercut

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

var cuts = flag.Int("powercut.cuts", 0, "how often the power is cut; 0: 1, with LUQUAN_REAL=1 20")

// record is what the guest says of one.
type record struct {
	epoch, seq string
}

// TestPowerCuts cuts the power of a board that writes, at random instants, and
// looks each time whether every record whose commit was reported is there,
// byte for byte, whether nothing is there that was never written, and whether
// what was there once stays there.
func TestPowerCuts(t *testing.T) {
	n := *cuts
	if n == 0 {
		n = 1
		if os.Getenv("LUQUAN_REAL") == "1" {
			n = 20
		}
	}
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("LUQUAN_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("LUQUAN_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	m := newMachine(t)

	acked := map[record]string{} // reported over the serial line: must be there
	seen := map[record]string{}  // found after a cut: must stay
	var cached, lost, opening, torn int
	for i := range n + 1 {
		had := map[record]string{}
		fresh, ran := 0, false
		inFlush := i%4 == 1 || i%4 == 2
		m.boot(t, inFlush && i < n, func(w []string) <-chan time.Time {
			switch {
			case w[0] == "had" && len(w) == 4:
				k := record{w[1], w[2]}
				if _, twice := had[k]; twice {
					t.Errorf("cut %d: %v is there twice", i, k)
				}
				had[k] = w[3]
			case w[0] == "end":
				torn += verify(t, i, had, acked, seen)
				if i == n {
					return time.After(0) // the last look
				}
			case w[0] == "start" && i%4 == 3: // while gatewayd opens the buffer
				return time.After(time.Duration(r.Int64N(int64(2500 * time.Millisecond))))
			case w[0] == "start":
			case w[0] == "run":
				ran = true
				if i%4 != 3 { // while it writes
					return time.After(time.Duration(r.Int64N(int64(5 * time.Second))))
				}
			case w[0] == "ack" && len(w) == 4:
				acked[record{w[1], w[2]}] = w[3]
				fresh++
			case w[0] == "damage" && len(w) > 6, w[0] == "log" && strings.Contains(strings.Join(w, " "), "records lost"):
				// Of a commit that was under way some sectors may be there and some not:
				// what is missing between them is named. Only what was reported must be there.
				t.Logf("cut %d: %s", i, strings.Join(w, " "))
			default:
				t.Errorf("cut %d: the guest says: %s", i, strings.Join(w, " "))
				if w[0] == "fail" {
					return time.After(0)
				}
			}
			return nil
		})
		if !ran {
			opening++
		}
		p := []float64{0, 1, r.Float64(), r.Float64()}[r.IntN(4)]
		c, l := m.disk.powerOn(r, p)
		cached, lost = cached+c, lost+l
		t.Logf("cut %d: %d records there, %d reported since; %d sectors in the drive's cache, %d of them lost", i, len(had), fresh, c, l)
		if t.Failed() {
			return
		}
	}
	if len(acked) < 20*n {
		t.Errorf("%d records were reported in %d cuts: too little to mean anything", len(acked), n)
	}
	fmt.Printf("power cuts: %d, %d of them while the buffer was opened; %d records reported as committed, all there, byte-identical; "+
		"%d more survived unreported; %d of %d cached sectors lost\n", n, opening, len(acked), torn, lost, cached)
}

// verify compares what a boot found with what was reported and what was found
// before, and returns how many records it found that were not reported.
func verify(t *testing.T, i int, had, acked, seen map[record]string) (unreported int) {
	t.Helper()
	for what, want := range map[string]map[record]string{"reported as committed": acked, "there after an earlier cut": seen} {
		for k, s := range want {
			if had[k] != s {
				t.Errorf("cut %d: epoch %s seq %s was %s and is %q now, want %q", i, k.epoch, k.seq, what, had[k], s)
			}
		}
	}
	for k, s := range had {
		if _, old := seen[k]; !old && acked[k] == "" {
			unreported++
		}
		seen[k] = s
	}
	return unreported
}
