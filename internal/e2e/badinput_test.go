package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// badBuild builds the real commands and returns their folder, which every
// user may enter.
func badBuild(t *testing.T) string {
	t.Helper()
	dir := badFolder(t)
	out, err := exec.Command("go", "build", "-o", dir+"/",
		"luquan/cmd/gatewayd", "luquan/cmd/hubd", "luquan/cmd/gatewayctl", "luquan/cmd/plantsim", "luquan/cmd/demo").CombinedOutput()
	if err != nil {
		t.Fatalf("build the commands: %v\n%s", err, out)
	}
	return dir
}

// badFolder is a fresh folder that another user may enter too.
func badFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func badWrite(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// badRun runs a command to its end, in dir.
func badRun(t *testing.T, dir string, argv ...string) (stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%v did not end by itself; it said:\n%s", argv, errOut.String())
	}
	return errOut.String(), cmd.ProcessState.ExitCode()
}

// badSays fails unless stderr is exactly the lines, each a pattern, and
// nothing in it is for programmers.
func badSays(t *testing.T, stderr string, lines ...string) {
	t.Helper()
	got := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	if len(got) != len(lines) {
		t.Errorf("%d lines, want %d:\n%s\nwant\n%s", len(got), len(lines), stderr, strings.Join(lines, "\n"))
		return
	}
	for i, p := range lines {
		if !regexp.MustCompile("^" + p + "$").MatchString(got[i]) {
			t.Errorf("line %d is\n%s\nwant\n%s", i+1, got[i], p)
		}
	}
	for _, word := range []string{"panic", "goroutine", "runtime error", "%!", "<nil>", "0x", "BUG"} {
		if strings.Contains(stderr, word) {
			t.Errorf("%q stands in what a technician reads:\n%s", word, stderr)
		}
	}
}

// badOnly fails when a refused start left something behind.
func badOnly(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := files[e.Name()]; !ok {
			t.Errorf("a refused start left %s behind", e.Name())
		}
	}
}

// badEdit returns text with old replaced once by new.
func badEdit(t *testing.T, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q stands %d times in the good file, not once", old, strings.Count(text, old))
	}
	return strings.Replace(text, old, new, 1)
}

const goodGateway = `site: heating-east
gateway: boiler-house-1
uplink: {broker: "mqtt://127.0.0.1:1"}
buffer: {dir: buffer, max: 64MiB, commit_every: 1s}
buses:
  - name: meters
    rtu: {port: /dev/no-such-port, baud: 9600, parity: none}
    devices:
      - {name: heat-meter-1, profile: kamstrup-multical-603, unit: 1, every: 10s}
      - {name: boiler-room, profile: xy-md02, unit: 2, points: [temperature]}
  - name: power-lan
    tcp: {address: "127.0.0.1:1"}
    devices:
      - {name: plant-meter, profile: schneider-iem3000-pm5xxx, unit: 1}
`

// TestBadInput runs the real commands against what people and machines do
// wrong: each time one clear sentence and exit status 1, or an orderly retry.
func TestBadInput(t *testing.T) {
	bin := badBuild(t)
	for _, tt := range []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"gateway files", badGatewayFiles},
		{"hub files", badHubFiles},
		{"command lines", badCommandLines},
		{"ports and folders taken", badTakenThings},
		{"nothing answers", badNothingAnswers},
		{"no InfluxDB", badNoInflux},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, bin) })
	}
}

// badGatewayFiles: what is wrong in gateway.yaml is one sentence at its
// place, the same from the daemon and from the technician's check.
func badGatewayFiles(t *testing.T, bin string) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		p := string(c - 1)
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+p+",", 8) + "*" + p + "]\n"
	}
	for _, tt := range []struct {
		name     string
		old, new string // an edit of the good file; old "" takes new as the whole file
		want     []string
	}{
		{"wrong key at the top", "gateway: boiler", "gatway: boiler", []string{`:2:1: unknown key "gatway"; did you mean "gateway"\?`}},
		{"wrong key in uplink", `uplink: {broker`, `uplink: {brokr`, []string{`:3:10: unknown key "brokr"; did you mean "broker"\?`}},
		{"wrong key in a bus", "baud:", "boud:", []string{`:7:36: unknown key "boud"; did you mean "baud"\?`}},
		{"wrong key in a device", "every: 10s", "evry: 10s", []string{`:9:71: unknown key "evry"; did you mean "every"\?`}},
		{"a key of a later stage", "site: heating-east", "site: heating-east\nalarms: {}", []string{`:2:1: unknown key "alarms"; known here: .*site.*`}},
		{"wrong profile", "xy-md02", "xy-md20", []string{`:10:38: profile "xy-md20" is not known; did you mean "xy-md02"\?`}},
		{"wrong point", "[temperature]", "[temprature]", []string{`:10:65: profile xy-md02 has no point "temprature"; did you mean "temperature"\?`}},
		{"two devices with one address", "unit: 2", "unit: 1", []string{`:10:53: unit 1 is already that of device "heat-meter-1" on this bus; two devices with one address answer at once`}},
		{"one name on two buses", "name: plant-meter", "name: boiler-room", []string{`:14:16: device "boiler-room" stands on bus "meters" already; a device's name is unique in its site`}},
		{"two buses of one name", "name: power-lan", "name: meters", []string{`:11:11: bus "meters" is named twice`}},
		{"unit 0", "unit: 2", "unit: 0", []string{`:10:53: unit 0 is outside 1 to 247`}},
		{"unit 300", "unit: 2", "unit: 300", []string{`:10:53: unit 300 is outside 1 to 247`}},
		{"unit in letters", "unit: 2", "unit: two", []string{`:10:53: "two" is not a whole number`}},
		{"every millisecond", "every: 10s", "every: 1ms", []string{`:9:78: a period of 1ms is outside 100ms to 24h`}},
		{"a period in words", "every: 10s", "every: often", []string{`:9:78: "often" is not a duration; write for example 500ms, .*`}},
		{"no list", "[temperature]", "temperature", []string{`:10:64: want a list here \(.*\), not a single value`}},
		{"a name in Chinese", "gateway: boiler-house-1", "gateway: 锅炉房", []string{`:2:10: "锅炉房" cannot be a name: .*; Chinese belongs in labels`}},
		{"a broker that is none", "mqtt://127.0.0.1:1", "127.0.0.1:1883", []string{`:3:18: "127.0.0.1:1883" is not a broker's address; write mqtt://host:1883, .*`}},
		{"a buffer too small", "64MiB", "64KiB", []string{`:4:28: buffer.max is 64KiB, and less than 8MiB holds no useful backlog`}},
		{"neither rtu nor tcp", `    tcp: {address: "127.0.0.1:1"}` + "\n", "", []string{`:11:5: bus "power-lan" has neither rtu nor tcp`}},
		{"a key twice", "site: heating-east\n", "site: heating-east\nsite: heating-west\n", []string{`:2:1: key "site" stands here a second time; keep one`}},
		{"two mistakes", "parity: none}", "parity: noone}\n    timout: 1s", []string{
			`:7:56: parity is "noone"; it is one of: even, odd, none`, `:8:5: unknown key "timout"; did you mean "timeout"\?`}},
		{"a tab", "gateway:", "\tgateway:", []string{`:2:1: not valid YAML: a tab stands here; indent with spaces`}},
		{"an open bracket", "[temperature]", "[temperature", []string{`:\d+:\d+: not valid YAML: [^\t]+`}},
		{"no colon", "gateway: b", "gateway b", []string{`:2:1: not valid YAML: this line is no key: value; .*`}},
		{"an empty file", "", "", []string{`: the file is empty`}},
		{"binary garbage", "", "\x7fELF\x00\x01\xff\xfe\x80", []string{`:1:5: this is not plain text in UTF-8; .*`}},
		{"Chinese in GBK", "", "site: a\n# \xb9\xa9\xc8\xc8\xd5\xbe\n", []string{`:2:3: this is not plain text in UTF-8; .*`}},
		{"only words", "", "see the manual\n", []string{`:1:1: want keys and values here \(key: value\), not a single value`}},
		{"a YAML bomb", "", bomb, []string{`:\d+:\d+: the document is too large or too deep here`}},
		{"a tower of brackets", "", "a: " + strings.Repeat("[", 1<<20), []string{`: brackets are nested far deeper than any configuration needs`}},
		{"five megabytes", "", strings.Repeat("# nothing\n", 500_000), []string{`: the file has 5000000 bytes, more than the 4194304 a configuration may have`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.new
			if tt.old != "" {
				text = badEdit(t, goodGateway, tt.old, tt.new)
			}
			dir := badFolder(t)
			files := map[string]string{"g.yaml": text}
			badWrite(t, dir, files)
			for _, argv := range [][]string{{"gatewayd", "--config", "g.yaml"}, {"gatewayctl", "check", "g.yaml"}} {
				command := strings.TrimSuffix(argv[0]+" "+argv[1], " --config")
				stderr, status := badRun(t, dir, append([]string{filepath.Join(bin, argv[0])}, argv[1:]...)...)
				if status != 1 {
					t.Errorf("%s: status %d, want 1", command, status)
				}
				want := make([]string, len(tt.want))
				for i, w := range tt.want {
					want[i] = command + ": g.yaml" + w
				}
				badSays(t, stderr, want...)
			}
			badOnly(t, dir, files)
		})
	}
	t.Run("files that are none", func(t *testing.T) {
		dir := badFolder(t)
		for _, tt := range []struct{ file, want string }{
			{"none.yaml", "none.yaml: there is no such file; check the path"},
			{".", `\.: this is a folder; name the file in it`},
			{"/dev/null", "/dev/null: this is a device or a pipe, not a file"},
		} {
			stderr, status := badRun(t, dir, filepath.Join(bin, "gatewayd"), "--config", tt.file)
			if status != 1 {
				t.Errorf("status %d, want 1", status)
			}
			badSays(t, stderr, "gatewayd: "+tt.want)
		}
	})
	t.Run("the good file is good", func(t *testing.T) {
		dir := badFolder(t)
		badWrite(t, dir, map[string]string{"g.yaml": goodGateway})
		if stderr, status := badRun(t, dir, filepath.Join(bin, "gatewayctl"), "check", "g.yaml"); status != 0 || stderr != "" {
			t.Errorf("status %d and %q", status, stderr)
		}
	})
}

const (
	goodHub = `name: shouyang
mqtt: {broker: embedded, listen: "127.0.0.1:0"}
rules: [rules.yaml]
page: page.yaml
console: {listen: "127.0.0.1:0"}
state: {dir: state}
overview:
  - {site: heating-east, points: [plant-meter/u_avg]}
`
	goodRules = `rules:
  - id: voltage-high
    points: "heating-east/plant-meter/u_avg"
    high: 100
    priority: high
    page: duty
    message: {zh: 电压过高, en: Voltage is high}
`
	goodPage = `channels:
  phone: {webhook: {url: "http://127.0.0.1:9/page"}}
rotas:
  duty: {notify: [phone]}
`
)

// badHubFiles is the same of the centre's files.
func badHubFiles(t *testing.T, bin string) {
	for _, tt := range []struct {
		name, file, old, new string
		want                 []string
	}{
		{"wrong key at the top", "hub.yaml", "console:", "consle:", []string{`hub.yaml:5:1: unknown key "consle"; did you mean "console"\?`}},
		{"wrong key inside", "hub.yaml", "{broker: em", "{brokr: em", []string{`hub.yaml:2:8: unknown key "brokr"; did you mean "broker"\?`}},
		{"wrong key in a list", "hub.yaml", "points: [p", "pionts: [p", []string{`hub.yaml:8:26: unknown key "pionts"; did you mean "points"\?`}},
		{"no such port", "hub.yaml", `console: {listen: "127.0.0.1:0"}`, `console: {listen: "127.0.0.1:99999"}`,
			[]string{`hub.yaml:5:19: "99999" is no port; it is a number from 1 to 65535, or 0 for any free one`}},
		{"for the whole network", "hub.yaml", `console: {listen: "127.0.0.1:0"}`, `console: {listen: "0.0.0.0:8080"}`,
			[]string{`hub.yaml:5:19: 0.0.0.0:8080 is not on loopback, and the console has no log-in yet; .*`}},
		{"no rule files", "hub.yaml", "[rules.yaml]", "[rules/*.yaml]", []string{`rules/\*.yaml: no file fits this pattern, .*`}},
		{"no page file", "hub.yaml", "page: page.yaml", "page: pages.yaml", []string{`pages.yaml: there is no such file; check the path`}},
		{"pages without a page file", "hub.yaml", "page: page.yaml\n", "", []string{`rules.yaml:6:11: the rule pages rota "duty", but hub.yaml names no page file; add page: page.yaml`}},
		{"no token file", "hub.yaml", "state:", `influx: {url: "http://127.0.0.1:1", bucket: b, token_file: token}` + "\nstate:",
			[]string{`influx.token_file: cannot read the token: .*no such file or directory; write it there, readable by this user only`}},
		{"wrong key in a rule", "rules.yaml", "priority:", "prority:", []string{`rules.yaml:5:5: unknown key "prority"; did you mean "priority"\?`}},
		{"wrong priority", "rules.yaml", "priority: high", "priority: urgent", []string{`rules.yaml:5:15: .*"urgent".*critical, high, medium, low.*`}},
		{"a rule that pages an unknown rota", "rules.yaml", "page: duty", "page: night", []string{`rules.yaml:6:11: the rule pages rota "night", which is not in page.yaml; there are duty`}},
		{"wrong key in page.yaml", "page.yaml", "url:", "ulr:", []string{`page.yaml:2:21: unknown key "ulr"; did you mean "url"\?`}},
		{"a channel that is not there", "page.yaml", "notify: [phone]", "notify: [fone]", []string{`page.yaml:4:19: channel "fone" is not under channels:; there are phone`}},
		{"an empty rule file", "rules.yaml", goodRules, "", []string{`rules.yaml: the file is empty`}},
		{"binary rules", "rules.yaml", goodRules, "\x00\x01", []string{`rules.yaml:1:1: this is not plain text in UTF-8; .*`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := badFolder(t)
			files := map[string]string{"hub.yaml": goodHub, "rules.yaml": goodRules, "page.yaml": goodPage}
			files[tt.file] = badEdit(t, files[tt.file], tt.old, tt.new)
			badWrite(t, dir, files)
			stderr, status := badRun(t, dir, filepath.Join(bin, "hubd"), "run", "--config", "hub.yaml")
			if status != 1 {
				t.Errorf("status %d, want 1", status)
			}
			for i := range tt.want {
				tt.want[i] = "hubd run: " + tt.want[i]
			}
			badSays(t, stderr, tt.want...)
			if tt.name != "no token file" { // the only one found after the state was opened
				badOnly(t, dir, files)
			}
		})
	}
}

func badCommandLines(t *testing.T, bin string) {
	for _, tt := range []struct {
		name   string
		argv   []string
		status int
		want   []string
	}{
		{"rules check", []string{"hubd", "rules", "check", "rules.yaml", "none.yaml"}, 1, []string{
			`hubd rules check: rules.yaml:4:5: unknown key "hihg"; did you mean "high"\?`, `hubd rules check: none.yaml: there is no such file; check the path`}},
		{"fault script", []string{"plantsim", "--faults", "faults.yaml"}, 1, []string{`plantsim: faults.yaml:1:20: unknown key "fro"; did you mean "for"\?`}},
		{"no fault script", []string{"plantsim", "--faults", "none.yaml"}, 1, []string{`plantsim: none.yaml: there is no such file; check the path`}},
		{"no such site", []string{"plantsim", "--site", "heating-plnt"}, 1, []string{`plantsim: there is no site "heating-plnt"; .*heating-plant.*`}},
		{"unknown flag of gatewayd", []string{"gatewayd", "--confg", "x"}, 2, []string{`gatewayd: unknown flag: --confg`, `see gatewayd --help`}},
		{"unknown flag of hubd", []string{"hubd", "run", "--confg", "x"}, 2, []string{`hubd run: unknown flag: --confg`, `see hubd run --help`}},
		{"unknown flag of gatewayctl", []string{"gatewayctl", "check", "--jsno", "x"}, 2, []string{`gatewayctl check: unknown flag: --jsno`, `see gatewayctl check --help`}},
		{"unknown flag of plantsim", []string{"plantsim", "--sit", "x"}, 2, []string{`plantsim: unknown flag: --sit`, `see plantsim --help`}},
		{"a demo for all", []string{"demo", "--listen", "0.0.0.0:0"}, 1, []string{`demo: --listen 0.0.0.0:0 is not an address on loopback, as 127.0.0.1:8080; the console has no log-in yet`}},
		{"a demo of no length", []string{"demo", "--for", "-5s"}, 1, []string{`demo: --for -5s is not a length of time; write for example 40s`}},
		{"unknown verb", []string{"hubd", "rules", "chekc"}, 2, []string{`hubd rules: unknown command "chekc"; did you mean "check"\?`, `see hubd rules --help`}},
		{"no verb", []string{"hubd"}, 2, []string{`hubd: say what to do: backup, import, ledger, quarantine, restore, rules, run`, `see hubd --help`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := badFolder(t)
			badWrite(t, dir, map[string]string{
				"rules.yaml":  badEdit(t, goodRules, "    high: 100", "    hihg: 100\n    high: 100"),
				"faults.yaml": "faults: [{at: 15s, fro: 15s, do: set, quantity: supply_temp, value: 55}]\n",
			})
			stderr, status := badRun(t, dir, append([]string{filepath.Join(bin, tt.argv[0])}, tt.argv[1:]...)...)
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			badSays(t, stderr, tt.want...)
		})
	}
}
