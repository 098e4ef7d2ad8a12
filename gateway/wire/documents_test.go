package wire

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"luquan/gateway/telemetry"
)

func TestTopics(t *testing.T) {
	for s, want := range map[string]Topic{
		"luquan/v1/heating-east/boiler-house-1/live":          {Site: site, Gateway: gateway, What: Live},
		"luquan/v1/heating-east/boiler-house-1/live.zst":      {Site: site, Gateway: gateway, What: Live, Zstd: true},
		"luquan/v1/heating-east/boiler-house-1/backfill":      {Site: site, Gateway: gateway, What: Backfill},
		"luquan/v1/heating-east/boiler-house-1/backfill.zst":  {Site: site, Gateway: gateway, What: Backfill, Zstd: true},
		"luquan/v1/heating-east/boiler-house-1/state":         {Site: site, Gateway: gateway, What: StateDoc},
		"luquan/v1/heating-east/boiler-house-1/meta/9f86d081": {Site: site, Gateway: gateway, What: MetaDoc, Arg: "9f86d081"},
		"luquan/v1/heating-east/boiler-house-1/committed":     {Site: site, Gateway: gateway, What: CommitDoc},
		"luquan/v1/heating-east/boiler-house-1/evidence":      {Site: site, Gateway: gateway, What: Evidence},
		"luquan/v1/heating-east/boiler-house-1/suppressed":    {Site: site, Gateway: gateway, What: Suppressed},
		"luquan/v1/hub/shouyang/time":                         {What: TimeBeat, Arg: "shouyang"},
	} {
		got, err := ParseTopic(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("%s: parsed as %+v (%v), written as %s", s, got, err, got)
		}
	}
	for _, s := range []string{"", "luquan/v1", "luquan/v2/a/b/live", "luquan/v1/a/b", "luquan/v1/a/b/nonsense", "luquan/v1/A/b/live",
		"luquan/v1/a/b/live/x", "luquan/v1/a/b/state.zst", "luquan/v1/a/b/meta", "luquan/v1/a/b/meta/xyz", "luquan/v1/a/b/live/",
		"luquan/v1/hub/x/live", "luquan/v1/hub/time", "luquan/v1/+/+/live", "luquan/v1/a/b/.zst", "luquan/v1/a/b/live.zst.zst", "x/luquan/v1/a/b/live"} {
		if got, err := ParseTopic(s); err == nil {
			t.Errorf("%q: parsed as %+v", s, got)
		}
	}
	if f := (Topic{Site: "+", Gateway: "+", What: MetaDoc, Arg: "+"}).String(); f != "luquan/v1/+/+/meta/+" {
		t.Errorf("filter is %s", f)
	}
}

func TestDocuments(t *testing.T) {
	state := State{V: 1, Online: true, Session: "5f1c", Since: 17, Version: "0.1", Boot: "6b1e", Epoch: 9, Cfg: "9f86d081",
		Holds: map[uint64][2]uint64{9: {1, 0}, 4: {100, 200}},
		Paged: []Paged{{Rule: "r", Point: "s/d/p", Start: 1, At: 2, To: "duty", Acked: true}}}
	doc := must(state.Marshal())
	if want := `{"v":1,"online":true,"session":"5f1c","since":17,"version":"0.1","boot":"6b1e","epoch":9,"cfg":"9f86d081",` +
		`"holds":{"4":[100,200],"9":[1,0]},"paged":[{"rule":"r","point":"s/d/p","start":1,"at":2,"to":"duty","acked":true}]}`; string(doc) != want {
		t.Errorf("state is\n%s, want\n%s", doc, want)
	}
	if back, err := ParseState(doc); err != nil || !reflect.DeepEqual(back, state) {
		t.Errorf("state came back as %+v, %v", back, err)
	}
	committed := Committed{V: 1, Hub: "shouyang/6b1e", Time: 17, Epochs: map[uint64]CommitEpoch{4837201: {Upto: 1234, Also: [][2]uint64{{1300, 1400}}}}}
	doc = must(committed.Marshal())
	if want := `{"v":1,"hub":"shouyang/6b1e","time":17,"epochs":{"4837201":{"upto":1234,"also":[[1300,1400]]}}}`; string(doc) != want {
		t.Errorf("committed is\n%s, want\n%s", doc, want)
	}
	if back, err := ParseCommitted(doc); err != nil || !reflect.DeepEqual(back, committed) {
		t.Errorf("committed came back as %+v, %v", back, err)
	}
	beat := HubTime{V: 1, Hub: "shouyang/6b1e", Time: 17}
	if back, err := ParseHubTime(must(beat.Marshal())); err != nil || back != beat {
		t.Errorf("time came back as %+v, %v", back, err)
	}
}

func TestDocumentsRefused(t *testing.T) {
	const state = `{"v":1,"online":true,"session":"5f1c","since":1,"boot":"b","epoch":9,"cfg":"9f86d081","holds":{"9":[1,5]}}`
	if _, err := ParseState([]byte(state)); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]string{{`"v":1`, `"v":2`}, {`"5f1c"`, `""`}, {`[1,5]`, `[7,5]`}, {`[1,5]`, `[0,5]`}, {`{"9"`, `{"x"`}, {`"epoch":9`, `"epoch":0`},
		{`"9f86d081"`, `"9"`}, {`}}`, `}`}, {`[1,5]`, `[1,-5]`}} {
		if _, err := ParseState([]byte(strings.Replace(state, r[0], r[1], 1))); err == nil {
			t.Errorf("state with %s was taken", r[1])
		}
	}
	const committed = `{"v":1,"hub":"h/1","time":1,"epochs":{"9":{"upto":5,"also":[[7,8],[10,12]]}}}`
	if _, err := ParseCommitted([]byte(committed)); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]string{{`"v":1`, `"v":3`}, {`"h/1"`, `""`}, {`"9"`, `"0"`}, {`[7,8]`, `[8,7]`}, {`[7,8]`, `[5,8]`}, {`[10,12]`, `[8,12]`},
		{`"upto":5`, `"upto":-1`}, {`"upto":5`, `"upto":9223372036854775808`}} {
		if _, err := ParseCommitted([]byte(strings.Replace(committed, r[0], r[1], 1))); err == nil {
			t.Errorf("committed with %s was taken", r[1])
		}
	}
	for _, s := range []string{`{"v":1,"hub":"h"}`, `{"v":1,"time":5}`, `{}`, `null`, ``} {
		if _, err := ParseHubTime([]byte(s)); err == nil {
			t.Errorf("time %q was taken", s)
		}
	}
}

func exampleMeta() Meta {
	lo, hi := -5.0, 130.5
	return Meta{Site: site, Gateway: gateway, Linger: 30 * time.Second, Devices: []telemetry.DeviceInfo{{
		Name: "heat-meter-1", Kind: "heat_meter", Bus: "meters", Profile: "kamstrup-multical-603",
		Label: telemetry.Label{En: "Heat meter", Zh: "热量表"},
		Tags:  []telemetry.Tag{{Key: "area", Value: "east"}, {Key: "system", Value: "primary"}},
		Groups: []telemetry.Group{
			{Index: 0, Every: 10 * time.Second, Points: []telemetry.Point{
				{Name: "flow_temp", Class: telemetry.Float, Unit: "degC", Min: &lo, Max: &hi, Label: telemetry.Label{Zh: "供水温度"}},
				{Name: "info", Class: telemetry.Int, Bits: map[int64]telemetry.Label{0: {En: "supply interrupted"}, 10: {En: "leak"}}},
			}},
			{Index: 1, Every: 1500 * time.Millisecond, Points: []telemetry.Point{
				{Name: "energy", Class: telemetry.Float, Unit: "Wh", Counter: true},
				{Name: "mode", Class: telemetry.Int, Enum: map[int64]telemetry.Label{1: {En: "auto", Zh: "自动"}}},
				{Name: "serial", Class: telemetry.String},
			}},
		}}}}
}

func TestMeta(t *testing.T) {
	doc, cfg, err := exampleMeta().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "meta.golden", append(doc, '\n'))
	m, gotCfg, err := ParseMeta(doc)
	if err != nil || gotCfg != cfg || !reflect.DeepEqual(m, exampleMeta()) {
		t.Errorf("came back as %+v, cfg %s, %v", m, gotCfg, err)
	}
	if doc2, cfg2, err := m.Marshal(); err != nil || cfg2 != cfg || string(doc2) != string(doc) {
		t.Errorf("marshalled again: cfg %s, %v\n%s", cfg2, err, doc2)
	}
	other := exampleMeta()
	other.Devices[0].Groups[1].Points[0].Unit = "J"
	if _, cfg2, _ := other.Marshal(); cfg2 == cfg {
		t.Error("another unit, the same cfg")
	}
	if _, err := ParseTopic(Topic{Site: site, Gateway: gateway, What: MetaDoc, Arg: cfg}.String()); err != nil {
		t.Error(err)
	}
}

func TestMetaRefused(t *testing.T) {
	doc, _, _ := exampleMeta().Marshal()
	for _, r := range [][2]string{{`"v":1`, `"v":2`}, {`"heating-east"`, `"X"`}, {`"heat-meter-1"`, `"h 1"`}, {`"heat_meter"`, `"heat-meter"`},
		{`"flow_temp"`, `"seq"`}, {`"float"`, `"double"`}, {`"10s"`, `"10"`}, {`"index":1`, `"index":0`}, {`"energy"`, `"flow_temp"`},
		{`"area"`, `"room"`}, {`"30s"`, `"-30s"`}} {
		bad := strings.Replace(string(doc), r[0], r[1], 1)
		if bad == string(doc) {
			t.Fatalf("%s is not there", r[0])
		}
		if _, _, err := ParseMeta([]byte(bad)); err == nil {
			t.Errorf("meta with %s was taken", r[1])
		}
	}
	twice := exampleMeta()
	twice.Devices = append(twice.Devices, twice.Devices[0])
	if _, _, err := twice.Marshal(); err == nil || !strings.Contains(err.Error(), "comes twice") {
		t.Errorf("a device twice: %v", err)
	}
}

func FuzzDocuments(f *testing.F) {
	doc, _, _ := exampleMeta().Marshal()
	f.Add(string(doc))
	f.Add(`{"v":1,"online":true,"session":"5f1c","since":1,"boot":"b","epoch":9,"cfg":"9f86d081","holds":{"9":[1,5]}}`)
	f.Add(`{"v":1,"hub":"h/1","time":1,"epochs":{"9":{"upto":5,"also":[[7,8],[10,12]]}}}`)
	f.Add("luquan/v1/heating-east/boiler-house-1/meta/9f86d081")
	f.Fuzz(func(t *testing.T, s string) {
		var back []error
		if m, _, err := ParseMeta([]byte(s)); err == nil {
			_, _, err = m.Marshal()
			back = append(back, err)
		}
		if v, err := ParseState([]byte(s)); err == nil {
			_, err = v.Marshal()
			back = append(back, err)
		}
		if v, err := ParseCommitted([]byte(s)); err == nil {
			_, err = v.Marshal()
			back = append(back, err)
		}
		if v, err := ParseHubTime([]byte(s)); err == nil {
			_, err = v.Marshal()
			back = append(back, err)
		}
		if v, err := ParseTopic(s); err == nil && v.String() != s {
			back = append(back, fmt.Errorf("topic %q is written %q", s, v))
		}
		for _, err := range back {
			if err != nil {
				t.Fatalf("%q was parsed and cannot be written: %v", s, err)
			}
		}
	})
}
