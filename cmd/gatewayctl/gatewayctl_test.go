package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"luquan/internal/daemon"
)

const sites = "../../firmware-config/sites/"

// run is the command as a technician types it.
func run(t *testing.T, line string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := command()
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	status = daemon.Execute(t.Context(), cmd, strings.Fields(line))
	return out.String(), errOut.String(), status
}

func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		line   string
		status int
		stdout []string // patterns that fit a whole line; none: nothing on stdout
		stderr []string // likewise
	}{
		{"check " + sites + "heating-plant/gateway.yaml", 0, []string{
			`bus meters: [0-9.]+ % of its time`,
			` +heat-meter-1 +kamstrup-multical-603 +5 +2 +[0-9.]+ ms +2s +2s +[0-9.]+ %`,
			` +IF SILENT +HOLDS THE BUS +ASKED EVERY +ALL +OTHERS WAIT`,
			` +heat-meter-1 +10[0-9.]+ ms +31s +[0-9.]+ % +up to 1[01][0-9]+ ms, keep their periods`,
			` +IF SLOW +HOLDS THE BUS +READ EVERY +ALL +OTHERS WAIT`,
			` +makeup-tank +10[0-9.]+ ms +2s +[0-9.]+ % +up to 1[01][0-9]+ ms, keep their periods`,
			`.*/gateway.yaml is sound: gateway boiler-house-1 of site heating-east`,
		}, nil},
		{"check " + sites + "sewage-works/gateway.yaml", 0, []string{`.* is sound: .*`}, nil},
		{"check " + sites + "sewage-works/gateway-aeration.yaml", 0, []string{`.* is sound: .*`}, nil},
		{"check " + sites + "computing-centre/gateway.yaml", 0, []string{`.* is sound: .*`}, nil},
		{"check testdata/wrong.yaml", 1, nil, []string{
			`gatewayctl check: testdata/wrong.yaml:2:1: unknown key "gatway"; did you mean "gateway"\?`,
			`gatewayctl check: testdata/wrong.yaml:8:29: unknown key "boud"; did you mean "baud"\?`,
		}},
		{"check none.yaml", 1, nil, []string{`gatewayctl check: none.yaml: there is no such file; check the path`}},
		{"check testdata", 1, nil, []string{`gatewayctl check: testdata: this is a folder; name the file in it`}},
		{"check", 2, nil, []string{`gatewayctl check: name one file, .*`, `see gatewayctl check --help`}},
		{"check testdata/busy.yaml", 0, []string{
			`warning: bus "meters": whenever a silent device is asked it holds the line for 1.2 s, and room-1 skips polls ` +
				`\(every 27[0-9]ms on average, not 260ms\): choose a longer period .*`,
			` +room-1 +1[0-9.]+ ms +3[0-9.]+s +[0-9.]+ % +up to 1[0-9]+ ms, keep their periods`,
			` +room-2 +1[0-9.]+ ms +3[0-9.]+s +[0-9.]+ % +up to 1[0-9]+ ms, room-1 every 27[0-9]ms, not 260ms`,
			`.* is sound: .*`,
		}, nil},
		{"check --turnaround 90ms testdata/busy.yaml", 1, []string{`bus meters: 10[0-9.]+ % of its time`}, []string{
			`.*bus "meters" cannot keep its periods: its polls take 10[0-9] % of the time; .*`,
		}},
		{"check testdata/full.yaml", 1, []string{`bus meters: 1[0-9]{2}\.[0-9] % of its time`}, []string{
			`gatewayctl check: testdata/full.yaml: bus "meters" cannot keep its periods: its polls take 1[0-9]{2} % of the time; ` +
				`the fastest it can is every period 1\.[0-9] times as long \(room-1 every 200ms, not 100ms\); .*`,
		}},
		{"profile list", 0, []string{
			`ID +KIND +POINTS +CONFIDENCE +UNPROVEN +中文 +MODEL`,
			`kamstrup-multical-603 +heat_meter +[0-9]+ +medium +[0-9]+ +热量表 MULTICAL 603 +Kamstrup MULTICAL .*`,
			`remond-water-probe +.*`,
		}, nil},
		{"profile show xy-md02", 0, []string{
			`source \(confidence high\): .*`,
			`POINT +TABLE +ADDRESS +PRINTED +TYPE +UNIT +中文 +ENGLISH`,
			`temperature +input +1 +[-0-9]+ +s16 +degC +环境温度 +Air temperature`,
			`called: 温湿度变送器 XY-MD02, .*`, `also: .*`, `as it leaves the factory: 9600 baud, 8 data bits, parity none, 1 stop bit, unit 1`,
		}, nil},
		{"profile show remond-water-probe --param probe=ph", 0, []string{
			`parameter probe: do, .* \(shown: ph; gateway.yaml must say it\): 探头.*`,
		}, nil},
		{"profile list --kind heat_meter --search MULTICAL", 0, []string{`ID .*中文.*`, `kamstrup-multical-603 .*热量表.*`}, nil},
		{"profile list --search 浊度", 0, []string{`remond-water-probe .*`}, nil},
		{"profile list --search no-such-thing", 0, []string{`no device model is like that; .*`}, nil},
		{"profile list --search no-such-thing --json", 0, []string{`\[\]`}, nil},
		{"profile list --kind heatmeter", 1, nil, []string{`gatewayctl profile list: no model has --kind "heatmeter"; did you mean "heat_meter"\?`}},
		{"profile list --used-at school", 1, nil, []string{`gatewayctl profile list: no model has --used-at "school"; there are .*sewage.*`}},
		{"profile list --json --markdown", 2, nil, []string{`.*--json and --markdown are two forms of one list; choose one`, `see .*`}},
		{"__complete profile list --kind heat", 0, []string{`heat_meter`, `:4`}, []string{`Completion ended .*`}},
		{"__complete profile show xy", 0, []string{`xy-md02`, `:4`}, []string{`Completion ended .*`}},
		{"profile show remond-water-probe --param probe=salt", 1, nil, []string{`.*parameter probe is "salt"; it is one of do, .*`}},
		{"profile frames testdata/lint/good.yaml", 2, nil, []string{`.*name the profile and the file of frames, .*`, `see .*`}},
		{"profile frames testdata/lint/good.yaml none.yaml", 1, nil, []string{`.*none.yaml: there is no such file; check the path`}},
		{"profile frames testdata/lint/wrong-id.yaml none.yaml", 1, nil, []string{`gatewayctl profile frames: testdata/lint/wrong-id.yaml:1:5: id is "another" .*`}},
		{"completion bash", 0, []string{`# bash completion V2 for gatewayctl.*`}, nil},
		{"profile show xy-md2", 1, nil, []string{`gatewayctl profile show: profile "xy-md2" is not known; did you mean "xy-md02"\?`}},
		{"profile shwo", 2, nil, []string{`gatewayctl profile: unknown command "shwo"; did you mean "show"\?`, `see .*`}},
		{"profile list --jsno", 2, nil, []string{`.*unknown flag: --jsno`, `see .*`}},
		{"--version", 0, []string{`gatewayctl .+`}, nil},
	} {
		t.Run(tt.line, func(t *testing.T) {
			stdout, stderr, status := run(t, tt.line)
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			fits(t, "stdout", stdout, tt.stdout)
			fits(t, "stderr", stderr, tt.stderr)
			if len(tt.stderr) != strings.Count(stderr, "\n") {
				t.Errorf("stderr has %d lines, want %d:\n%s", strings.Count(stderr, "\n"), len(tt.stderr), stderr)
			}
		})
	}
}

func fits(t *testing.T, what, text string, patterns []string) {
	t.Helper()
	if len(patterns) == 0 && text != "" {
		t.Errorf("%s is not empty:\n%s", what, text)
	}
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)^" + p + "$").MatchString(text) {
			t.Errorf("no line of %s fits %s:\n%s", what, p, text)
		}
	}
}

func TestJSON(t *testing.T) {
	var r report
	into(t, "check --json "+sites+"heating-plant/gateway.yaml", 0, &r)
	if !r.Sound || len(r.Errors) != 0 || len(r.Buses) != 3 || len(r.Buses[0].Polls) != 3 || r.Buses[0].Percent <= 0 ||
		r.Buses[0].Polls[0].Reached != "2s" || len(r.Buses[0].Silent) != 3 || len(r.Buses[0].Slow) != 3 || r.Buses[0].Silent[0].Polled != "31s" {
		t.Errorf("got %+v", r)
	}
	r = report{}
	into(t, "check --json testdata/wrong.yaml", 1, &r)
	if want := (mistake{"testdata/wrong.yaml", 2, 1, `unknown key "gatway"; did you mean "gateway"?`}); r.Sound || len(r.Errors) != 2 || r.Errors[0] != want {
		t.Errorf("got %+v, want %+v first", r, want)
	}
	r = report{}
	into(t, "check --json testdata/full.yaml", 1, &r)
	if r.Sound || len(r.Errors) != 1 || r.Buses[0].Percent <= 100 {
		t.Errorf("got %+v, want one bus that is refused", r)
	}
	var models []model
	into(t, "profile list --json", 0, &models)
	if len(models) < 7 || models[0].ID == "" || models[0].Kind == "" || models[0].Points != nil || models[0].Count == 0 {
		t.Errorf("got %+v", models)
	}
	var sewage []model
	into(t, "profile list --json --used-at sewage", 0, &sewage)
	if len(sewage) == 0 || len(sewage) >= len(models) || !slices.Contains(sewage[0].UsedAt, "sewage") {
		t.Errorf("%d of %d models are used at sewage works: %+v", len(sewage), len(models), sewage)
	}
	var m model
	into(t, "profile show --json xy-md02", 0, &m)
	want := modelPoint{Name: "temperature", Table: "input", Address: 1, Type: "s16", Unit: "degC", Zh: "环境温度", En: "Air temperature"}
	if len(m.Points) > 0 {
		want.DocAddress, want.Note = m.Points[0].DocAddress, m.Points[0].Note
	}
	if len(m.Points) < 2 || m.Count != len(m.Points) || m.Points[0] != want || m.Source == "" || m.Serial == "" {
		t.Errorf("got %+v, want %+v first", m.Points, want)
	}
}

func into(t *testing.T, line string, status int, v any) {
	t.Helper()
	stdout, _, got := run(t, line)
	if got != status {
		t.Errorf("%s: status %d, want %d", line, got, status)
	}
	if err := json.Unmarshal([]byte(stdout), v); err != nil {
		t.Fatalf("%s: %v in\n%s", line, err, stdout)
	}
}
