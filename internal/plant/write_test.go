package plant

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestWhatCouldChangeAPlant: over both kinds of bus, to whichever unit, every
// function but those that only ask is told, and answered with exception 1.
func TestWhatCouldChangeAPlant(t *testing.T) {
	var mu sync.Mutex
	var told []Write
	p := bench(t, Options{Frozen: true, OnWrite: func(w Write) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, w)
	}})
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(told)
	}
	asks := map[byte]bool{0: true, 1: true, 2: true, 3: true, 4: true, 7: true, 8: true, 11: true, 12: true, 17: true, 20: true, 24: true, 43: true}
	lan, line := dial(t, p, "lan"), openLine(t, p, "line")
	want := 0
	for fn := range 128 {
		pdu := []byte{byte(fn), 0, 0, 0, 1}
		if fn == 43 {
			pdu = []byte{43, 14, 1, 0}
		}
		if !asks[byte(fn)] {
			want++
		}
		got := lan.ask(1, pdu, soon)
		if (fn < 1 || fn > 4) && !slices.Equal(got, []byte{byte(fn) | 0x80, 1}) {
			t.Errorf("function %d is answered % x", fn, got)
		}
		if count() != want {
			t.Fatalf("after function %d %d requests are told, want %d", fn, count(), want)
		}
	}
	for _, tt := range []struct {
		name  string
		unit  byte
		pdu   []byte
		write bool
	}{
		{"write to a device", 7, []byte{6, 0, 0, 0, 1}, true},
		{"write to all", 0, []byte{5, 0, 0, 0xFF, 0}, true},
		{"write to nobody", 99, []byte{16, 0, 0, 0, 1, 2, 0, 1}, true},
		{"write and read", 7, []byte{23, 0, 0, 0, 1, 0, 0, 0, 1, 2, 0, 0}, true},
		{"echo", 7, []byte{8, 0, 0, 0xA5, 0x37}, false},
		{"restart", 7, []byte{8, 0, 1, 0, 0}, true},
		{"listen only", 7, []byte{8, 0, 4, 0, 0}, true},
		{"clear the counters", 7, []byte{8, 0, 10, 0, 0}, true},
		{"a counter", 7, []byte{8, 0, 11, 0, 0}, false},
		{"CANopen", 7, []byte{43, 13, 0, 0}, true},
	} {
		before := count()
		if tt.unit == 7 {
			if got := line.ask(7, tt.pdu, 5, soon); !slices.Equal(got, framed(7, []byte{tt.pdu[0] | 0x80, 1})) {
				t.Errorf("%s: answered % x", tt.name, got)
			}
		} else if got := line.ask(tt.unit, tt.pdu, 1, 100*time.Millisecond); got != nil {
			t.Errorf("%s: answered % x", tt.name, got)
		}
		mu.Lock()
		if wrote := len(told) > before; wrote != tt.write {
			t.Errorf("%s: told %v, want %v", tt.name, wrote, tt.write)
		} else if wrote {
			if w := told[before]; w.Bus != "line" || w.Unit != tt.unit || w.Function != tt.pdu[0] || !slices.Equal(w.PDU, tt.pdu) {
				t.Errorf("%s: told %v", tt.name, w)
			}
		}
		mu.Unlock()
	}
	if n := p.WriteAttempts(); n != uint64(count()) {
		t.Errorf("%d attempts counted, %d told", n, count())
	}
}

// writer makes this test binary a plant that is written to, over the bus named.
const writer = "LUQUAN_WRITE"

// TestAWriteEndsTheProcess: a plant without OnWrite does not outlive a write.
func TestAWriteEndsTheProcess(t *testing.T) {
	write := []byte{16, 0, 0, 0, 1, 2, 0, 1}
	if bus := os.Getenv(writer); bus != "" {
		p := bench(t, Options{Frozen: true})
		if bus == "lan" {
			dial(t, p, bus).ask(1, write, soon)
		} else {
			openLine(t, p, bus).ask(0, write, 1, soon)
		}
		return
	}
	for bus, unit := range map[string]string{"lan": "unit 1", "line": "unit 0"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAWriteEndsTheProcess$")
		cmd.Env = append(os.Environ(), writer+"="+bus)
		out, err := cmd.CombinedOutput()
		want := "panic: BUG: a request that could change the plant came to " + unit + " of bus " + bus +
			": function 16, bytes 10 00 00 00 01 02 00 01; only reads are promised"
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("written to over %s the plant ends with %v, want %q in\n%s", bus, err, want, out)
		}
	}
}
