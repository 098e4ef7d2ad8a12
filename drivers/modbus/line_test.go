package modbus

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers"
	"luquan/drivers/drivertest"
	"luquan/drivers/modbus/bus"
	"luquan/drivers/modbus/plan"
	"luquan/gateway/edge/poll"
	"luquan/gateway/telemetry"
)

// What a line shows when the real poller and driver work it, on the line's own
// virtual clock, against what Budget and the poller's forecast said before.

// lineRig is a line in memory with a slave that keeps the time of real ones.
type lineRig struct {
	*Bus
	config Config
	slave  *drivertest.Slave
	meter  *meterConn
	serves sync.WaitGroup

	// turnaround of a unit at a request; ok false: no answer. garbles: a damaged one.
	turnaround func(unit byte) (wait time.Duration, ok bool)
	garbles    func(unit byte) bool
}

// meterConn sees what is on the line: from the first byte of each request to
// the last of its answer, or the next request.
type meterConn struct {
	net.Conn
	mu          sync.Mutex
	asked, last time.Time
	busy        time.Duration
	requests    int
	taken       []time.Duration // by each transaction that was answered
}

func (m *meterConn) Write(b []byte) (int, error) {
	m.mu.Lock()
	m.close()
	m.asked, m.last = time.Now(), time.Time{}
	m.requests++
	m.mu.Unlock()
	return m.Conn.Write(b)
}

func (m *meterConn) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if n > 0 {
		m.mu.Lock()
		m.last = time.Now()
		m.mu.Unlock()
	}
	return n, err
}

// close ends the transaction under way. mu is held.
func (m *meterConn) close() {
	if m.last.After(m.asked) && !m.asked.IsZero() {
		m.busy += m.last.Sub(m.asked)
		m.taken = append(m.taken, m.last.Sub(m.asked))
	}
}

func newLineRig(t *testing.T, text string, turnaround time.Duration) *lineRig {
	t.Helper()
	c, err := parse(t, text)
	if err != nil {
		t.Fatal(err)
	}
	r := &lineRig{config: c, slave: &drivertest.Slave{}, meter: &meterConn{}}
	r.turnaround = func(byte) (time.Duration, bool) { return turnaround, true }
	r.garbles = func(byte) bool { return false }
	at := 6 // of the unit
	dial := func() (net.Conn, error) {
		near, far := drivertest.Pair()
		r.serves.Go(func() {
			if c.TCP != nil && c.TCP.Framing != "rtu" {
				r.slave.ServeTCP(far)
			} else {
				r.slave.ServeRTU(far)
			}
		})
		r.meter.Conn = near
		return r.meter, nil
	}
	var line *bus.Bus
	if c.RTU != nil {
		at = 0
		r.slave.Char = c.RTU.options().CharTime()
		line = c.RTU.options().Over(func(context.Context) (net.Conn, error) { return dial() })
	} else {
		o := c.TCP.options()
		o.Dial = func(context.Context, string, string) (net.Conn, error) { return dial() }
		if line, err = bus.DialTCP(o); err != nil {
			t.Fatal(err)
		}
	}
	r.slave.Script = func(_ int, req, ans []byte) []drivertest.Step {
		wait, ok := r.turnaround(req[at])
		if !ok {
			return nil
		}
		if r.garbles(req[at]) {
			ans = append([]byte(nil), ans...)
			ans[len(ans)/2] ^= 0x10
		}
		return []drivertest.Step{{Wait: wait, Bytes: ans}}
	}
	r.Bus = c.build(line, c.planCost(), nil)
	return r
}

// planCost is what Open plans with.
func (c *Config) planCost() plan.Line {
	_, cost, _ := c.openLine()
	return cost
}

// polls notes when each device was polled.
type polls struct {
	mu sync.Mutex
	at map[string][]time.Time
	q  map[string]map[telemetry.Quality]int
}

func (p *polls) Sample(_ string, s telemetry.Sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at[s.Device] = append(p.at[s.Device], s.Time)
	if p.q[s.Device] == nil {
		p.q[s.Device] = map[telemetry.Quality]int{}
	}
	p.q[s.Device][s.Status]++
}

// every is the mean period of a device between two times after the start.
func (p *polls) every(device string, start time.Time, since time.Duration) time.Duration {
	var at []time.Time
	for _, x := range p.at[device] {
		if x.Sub(start) > since {
			at = append(at, x)
		}
	}
	if len(at) < 2 {
		return math.MaxInt64
	}
	return at[len(at)-1].Sub(at[0]) / time.Duration(len(at)-1)
}

func (r *lineRig) run(d time.Duration) (*polls, poll.Stats) {
	p := &polls{at: map[string][]time.Time{}, q: map[string]map[telemetry.Quality]int{}}
	x := poll.New([]drivers.Bus{r.Bus}, p, nil)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(d, cancel) // no deadline: it would end the last poll as a time-out
	x.Run(ctx)
	r.Close()
	r.serves.Wait()
	return p, x.Stats()[0]
}

// forecast is what Budget says, as the poller's forecast takes it.
func forecastLoads(b Budget) (out []poll.Load) {
	for _, l := range b.Loads {
		out = append(out, poll.Load{Device: l.Device, Every: l.Every, Takes: l.Poll, Slow: l.Slow, Silent: l.Silent})
	}
	return out
}

// within fails unless got is within 5 % of said.
func within(t *testing.T, what string, got, said float64) {
	t.Helper()
	off := got/said - 1
	t.Logf("%s: the line shows %.4g, Budget said %.4g (%+.2f %%)", what, got, said, 100*off)
	if math.Abs(off) > 0.05 {
		t.Errorf("%s: more than 5 %% off", what)
	}
}

// meters is a bus of n devices of 40 registers.
func meters(head string, n int, every time.Duration, limits string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: line\n%s\ntimeout: 1s\ndevices:\n", head)
	for i := range n {
		fmt.Fprintf(&b, "  - name: meter-%02d\n    unit: %d\n    every: %v\n", i+1, i+1, every)
		fmt.Fprintf(&b, "    profile:\n      kind: probe\n      label: {en: Probe}\n      source: {where: test, confidence: high}\n      limits: {%s}\n      points:\n", limits)
		for p := range 20 {
			fmt.Fprintf(&b, "        - {name: p%d, label: {en: P}, table: holding, address: %d, type: u32}\n", p, 2*p)
		}
	}
	return b.String()
}

// TestBudgetIsWhatTheLineShows: the load of a bus, and the time of each poll.
func TestBudgetIsWhatTheLineShows(t *testing.T) {
	const rtu9600 = "rtu: {port: /dev/x, baud: 9600}"
	for name, tt := range map[string]struct {
		text       string
		turnaround time.Duration // 0: what Budget supposes of itself
		tcp        bool
	}{
		"9600, as supposed":         {text: meters(rtu9600, 20, 3730*time.Millisecond, "gaps: ok")},
		"9600, 3 ms":                {text: meters(rtu9600, 20, 3200*time.Millisecond, "gaps: ok"), turnaround: 3 * time.Millisecond},
		"19200, 5 ms":               {text: meters("rtu: {port: /dev/x, baud: 19200}", 20, 2*time.Second, "gaps: ok"), turnaround: 5 * time.Millisecond},
		"115200, 3 ms":              {text: meters("rtu: {port: /dev/x, baud: 115200, parity: none}", 20, time.Second, "gaps: ok"), turnaround: 3 * time.Millisecond},
		"blocks of 16, with pauses": {text: meters(rtu9600, 5, 5*time.Second, "gaps: ok, max_registers: 16, pause: 50ms"), turnaround: 10 * time.Millisecond},
		"tcp":                       {text: meters("tcp: {address: plc}", 20, time.Second, "max_registers: 16"), turnaround: 12 * time.Millisecond, tcp: true},
		"the library": {text: rtu9600 + "\nname: line\ndevices:\n" +
			"  - {name: heat, unit: 1, every: 10s, profile: kamstrup-multical-603}\n" +
			"  - {name: pump, unit: 2, every: 2s, profile: grundfos-cim-pump}\n" +
			"  - {name: power, unit: 3, every: 5s, profile: schneider-iem3000-pm5xxx}\n" +
			"  - {name: ups, unit: 4, every: 5s, profile: apc-smart-ups-modbus}\n" +
			"  - {name: room, unit: 5, every: 2s, profile: xy-md02}\n" +
			"  - {name: level, unit: 6, every: 1s, profile: qdy30a}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				turnaround := tt.turnaround
				if turnaround == 0 {
					turnaround = plan.DefaultTurnaround
				}
				r := newLineRig(t, tt.text, turnaround)
				b, err := r.config.Budget(library(t), tt.turnaround)
				if err != nil {
					t.Fatal(err)
				}
				const whole = 20 * time.Minute
				_, st := r.run(whole)
				if st.Failed > 0 || st.Skipped > 0 {
					t.Errorf("%+v", st)
				}
				// On the wire a transaction is followed by the silence that the next one waits for.
				gap := time.Duration(r.meter.requests) * r.config.planCost().Silence
				within(t, "share of the line's time", float64(r.meter.busy+gap)/float64(whole), b.Share-pauses(r, b))
				within(t, "share of the poller's time", float64(st.Busy+gap)/float64(whole), b.Share)
			})
		})
	}
}

// pauses is the part of the budget in which the line is silent because a device wants it so.
func pauses(r *lineRig, b Budget) float64 {
	sum := 0.0
	for _, l := range b.Loads {
		for i := range r.config.Devices {
			if r.config.Devices[i].Name == l.Device {
				pause := max(0, r.config.Devices[i].resolved.Limits.Pause-r.config.planCost().Silence)
				sum += float64(pause) * float64(l.Requests-1) / float64(l.Every)
			}
		}
	}
	return sum
}

// TestOthersKeepTheirPeriodOnTheLine: at 70 % of a serial line, 1 s of
// time-out, 3 of 20 devices dead or garbling everything: the other 17 keep
// their period within 5 %; with one device answering in the last millisecond
// of its limit they do as far as the forecast says they can, and it has the
// period that the forecast gives it.
func TestOthersKeepTheirPeriodOnTheLine(t *testing.T) {
	for _, tt := range []struct {
		baud   int
		every  time.Duration
		limits string // what makes a poll long
	}{
		{19200, 2150 * time.Millisecond, ""},
		{9600, 3730 * time.Millisecond, ""},
		{9600, 25 * time.Second, "max_registers: 2"},
	} {
		for _, mode := range []string{"dead", "garbled", "slow"} {
			t.Run(fmt.Sprintf("%s, every %v", mode, tt.every), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					every, n := tt.every, 20
					r := newLineRig(t, meters(fmt.Sprintf("rtu: {port: /dev/x, baud: %d}", tt.baud), n, every, tt.limits), plan.DefaultTurnaround)
					b, err := r.config.Budget(library(t), 0)
					if err != nil {
						t.Fatal(err)
					}
					if b.Share < 0.68 || b.Share > 0.72 {
						t.Fatalf("the load is %.1f %%", 100*b.Share)
					}
					loads := forecastLoads(b)
					odd := 3
					said := poll.Predict(loads)
					switch mode {
					case "dead":
						r.turnaround = func(unit byte) (time.Duration, bool) { return plan.DefaultTurnaround, unit > 3 }
						said = poll.PredictSilent(loads, "meter-01")
					case "garbled":
						r.garbles = func(unit byte) bool { return unit <= 3 }
					case "slow":
						odd = 1
						said = poll.PredictSlow(loads, "meter-01")
						r.turnaround = func(unit byte) (time.Duration, bool) {
							if unit == 1 {
								return time.Second - time.Millisecond, true
							}
							return plan.DefaultTurnaround, true
						}
					}
					start := time.Now()
					p, st := r.run(20 * time.Minute)
					worst, at := 0.0, ""
					for _, l := range b.Loads[odd:] {
						if off := math.Abs(float64(p.every(l.Device, start, 2*every))/float64(every) - 1); off > worst {
							worst, at = off, l.Device
						}
					}
					t.Logf("load %.0f %%, forecast %.0f %%; the other %d are off by at most %.2f %% %s; skipped %d, rested %d",
						100*b.Share, 100*said.Share, n-odd, 100*worst, at, st.Skipped, st.Rested)
					if said.Every[odd] != every {
						t.Errorf("the forecast gives the others %v", said.Every[odd])
					}
					if mode == "garbled" && float64(st.Busy) > 0.75*float64(20*time.Minute) {
						t.Errorf("the garbled ones take the line to %.0f %%", 100*float64(st.Busy)/float64(20*time.Minute))
					}
					if worst > 0.05 {
						t.Errorf("%s is off by %.1f %%", at, 100*worst)
					}
					for _, l := range b.Loads[odd:] {
						if len(p.q[l.Device]) != 1 || p.q[l.Device][telemetry.Good] == 0 {
							t.Errorf("%s: %v", l.Device, p.q[l.Device])
						}
					}
					if mode == "slow" {
						within(t, "period of the slow one", p.every("meter-01", start, 2*every).Seconds(), said.Every[0].Seconds())
					}
					if mode == "dead" {
						within(t, "time between attempts at a dead one", p.every("meter-02", start, 3*time.Minute).Seconds(), said.Every[0].Seconds())
					}
				})
			})
		}
	}
}

// TestBudgetOfAnyBus: random buses of the library's devices, with any speed,
// turnaround and periods: the line shows what Budget said.
func TestBudgetOfAnyBus(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	lib := library(t)
	worst := 0.0
	for n := range 25 {
		synctest.Test(t, func(t *testing.T) {
			head := fmt.Sprintf("rtu: {port: /dev/x, baud: %d, parity: %s, stop_bits: %d}",
				[]int{4800, 9600, 19200, 38400, 115200}[rng.IntN(5)], []string{"even", "none"}[rng.IntN(2)], 1+rng.IntN(2))
			if rng.IntN(4) == 0 {
				head = "tcp: {address: plc}"
			}
			text := "name: line\n" + head + "\ndevices:\n"
			for i := range 2 + rng.IntN(6) {
				id := lib.Names()[rng.IntN(len(lib.Names()))]
				if len(lib.Params(id)) > 0 {
					continue
				}
				text += fmt.Sprintf("  - {name: d%d, unit: %d, every: %dms, profile: %s}\n", i, i+1, 2000+rng.IntN(8000), id)
			}
			text += "  - {name: room, unit: 99, every: 2s, profile: xy-md02}\n"
			turnaround := time.Duration(1+rng.IntN(60)) * time.Millisecond
			r := newLineRig(t, text, turnaround)
			b, err := r.config.Budget(lib, turnaround)
			if err != nil {
				t.Fatal(err)
			}
			_, st := r.run(20 * time.Minute)
			gap := time.Duration(r.meter.requests) * r.config.planCost().Silence
			shown, said := float64(r.meter.busy+gap)/float64(20*time.Minute), b.Share-pauses(r, b)
			worst = max(worst, math.Abs(shown/said-1))
			if b.Share < 0.9 && math.Abs(shown/said-1) > 0.05 {
				t.Errorf("case %d: the line shows %.4f, Budget said %.4f, %+v\n%s", n, shown, said, st, text)
			}
		})
	}
	t.Logf("at most %.2f %% off", 100*worst)
}
