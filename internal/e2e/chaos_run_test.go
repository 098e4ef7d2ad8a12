package e2e

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	chaosRounds = flag.Int("chaos.rounds", 4, "rounds of faults in TestChaos; with ten or more every kind comes")
	chaosSeed   = flag.Uint64("chaos.seed", 0, "seed of TestChaos; 0 draws one")
	chaosLogs   = flag.String("chaos.logs", "", "a folder for the logs of the processes of TestChaos")
)

// TestChaos is the project's first promise: a reading reaches InfluxDB exactly
// once or is named as lost, whatever breaks.
//
//	go test -run TestChaos -v -timeout 30m ./internal/e2e -chaos.rounds=60 -chaos.seed=5
//
// 60 rounds take about eight minutes, -chaos.rounds=500 an hour (-timeout 2h). A plant
// gives each complete read of its registers a serial number and writes down
// when; gatewayd, hubd, mosquitto and influxd are the real ones, each a process
// of its own. Faults come in rounds, first each kind alone, then at random and
// sometimes two at once: SIGKILL of each of the four, each link cut (reset, or
// silent), the board's and the hub's file system full, the board's clock stepped
// by up to two hours; a kill of the board may be a reboot with an unset clock.
// Each kind must have been felt at least once, how, the functions of
// chaos_faults_test.go say.
//
// At the end every serial number that was served is in InfluxDB once, with the
// values that were served with it, or in quarantine, or in a range that the
// board declared lost, or was read at most commit_every before a kill of the
// board; the ledger says the same as InfluxDB, by (epoch, seq); and every stamp
// is the time that the clock its code names showed when the plant answered.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("chaos takes a minute")
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d: repeat with -chaos.seed=%d", seed, seed)
	c := newChaos(t, rand.New(rand.NewPCG(seed, 5)))
	eventually(t, 30*time.Second, "the first readings are stored", func() bool { return len(c.account().rows) > 20 })
	d := &deck{rng: c.rng, faults: chaosFaults(c)}
	for n := 1; n <= *chaosRounds; n++ {
		c.round(n, d)
	}
	c.settle()
	c.judge(d.faults)
	for _, f := range d.faults {
		t.Logf("%-22s injected %3d, effective %3d", f.name, f.injected, f.effective)
		if f.effective == 0 && f.injected > 0 {
			t.Errorf("%s was never effective", f.name)
		}
		if f.injected == 0 && *chaosRounds >= len(d.faults) {
			t.Errorf("%s was never injected", f.name)
		}
	}
}
