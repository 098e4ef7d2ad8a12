package plant

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
)

// mbpoll runs the stock master and returns the values it printed.
func mbpoll(t *testing.T, args ...string) []string {
	t.Helper()
	exe, err := exec.LookPath("mbpoll")
	if err != nil {
		if os.Getenv("LUQUAN_REAL") != "" {
			t.Fatal("mbpoll is not installed; apt-get install mbpoll")
		}
		t.Skip("mbpoll is not installed; LUQUAN_REAL=1 makes that a failure")
	}
	out, err := exec.Command(exe, append([]string{"-1", "-q", "-o", "2"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mbpoll %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	var values []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "[") {
			_, v, _ := strings.Cut(line, ":")
			values = append(values, strings.Fields(v)[0])
		}
	}
	return values
}

func TestMbpollReadsBothKindsOfBus(t *testing.T) {
	p := bench(t, Options{Frozen: true})
	host, port, _ := strings.Cut(p.Addr("lan"), ":")
	supply, _ := p.Quantity("supply_temp")
	want := []string{strconv.Itoa(int(supply*100 + 0.5))}
	if got := mbpoll(t, "-m", "tcp", "-p", port, "-a", "1", "-t", "4", "-0", "-r", "0", "-c", "1", host); !slices.Equal(got, want) {
		t.Errorf("over TCP %v, want %v", got, want)
	}
	line := []string{"-m", "rtu", "-b", "9600", "-P", "none", "-0", "-r", "0", "-c", "1", "-t", "4"}
	if got := mbpoll(t, append(line, "-a", "1", p.Port("line"))...); !slices.Equal(got, want) {
		t.Errorf("over the line %v, want %v", got, want)
	}
	if got := mbpoll(t, append(line, "-a", "7", p.Port("line"))...); !slices.Equal(got, []string{"1234"}) {
		t.Errorf("unit 7 over the line %v, want 1234", got)
	}
	out, err := exec.Command("mbpoll", "-1", "-q", "-o", "0.3", "-m", "rtu", "-b", "19200", "-P", "none", "-0", "-r", "0", "-t", "4", "-a", "7", p.Port("line")).CombinedOutput()
	if err == nil && !bytes.Contains(out, []byte("timed out")) {
		t.Errorf("a master at another speed was answered: %s", out)
	}
}

func splitAddr(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, ok := strings.Cut(addr, ":")
	if !ok {
		t.Fatalf("address %q has no port", addr)
	}
	return host, port
}

func TestMbpollReadsThreePointsOfEveryProfile(t *testing.T) {
	done := map[string]int{}
	for dir := range siteNames {
		p := start(t, firmwareconfig.FS, "sites/"+dir, Options{Frozen: true, Dir: t.TempDir()})
		for _, b := range p.Buses() {
			for _, d := range b.Devices {
				for _, f := range p.byName[d.Name].feeds {
					pt := f.point
					if done[d.Profile] >= 3 || pt.Table.IsBit() || f.view || d.Profile == "qdy30a" && pt.Address != 2 && pt.Address != 4 {
						continue
					}
					args := []string{"-a", fmt.Sprint(d.Unit), "-0", "-t", map[profile.Table]string{profile.Holding: "4:hex", profile.Input: "3:hex"}[pt.Table],
						"-r", fmt.Sprint(pt.Address), "-c", fmt.Sprint(pt.Words)}
					if b.Addr != "" {
						host, port := splitAddr(t, b.Addr)
						args = append(args, "-m", "tcp", "-p", port, host)
					} else {
						args = append(args, "-m", "rtu", "-b", fmt.Sprint(b.Baud), "-P", b.Parity, b.Port)
					}
					var want []string
					for _, w := range registers(t, p, d.Name, byte(pt.Table), pt.Address, pt.Words) {
						want = append(want, fmt.Sprintf("0x%04X", w))
					}
					if got := mbpoll(t, args...); !slices.Equal(got, want) {
						t.Errorf("%s/%s: mbpoll says %v, want %v", d.Name, pt.Name, got, want)
					}
					done[d.Profile]++
				}
			}
		}
	}
	for _, id := range []string{"kamstrup-multical-603", "grundfos-cim-pump", "schneider-iem3000-pm5xxx", "remond-water-probe", "apc-smart-ups-modbus"} {
		if done[id] < 3 {
			t.Errorf("mbpoll read %d points of %s, want 3", done[id], id)
		}
	}
}
