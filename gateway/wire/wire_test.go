package wire

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"luquan/gateway/telemetry"
)

const (
	site    = "heating-east"
	gateway = "boiler-house-1"
	epoch   = 4837201
)

var stamp = time.Unix(1763850000, 123456789)

func header(count int) Header {
	return Header{Epoch: epoch, First: 1200, Count: count, Lane: Live, Session: "5f1c",
		Sent: 1763850000456000000, Boot: "6b1e0f52-0d3a-4b6e-9a55-0f6f2b7f4c11", Cfg: "9f86d081"}
}

func liveTopic(zst bool) Topic { return Topic{Site: site, Gateway: gateway, What: Live, Zstd: zst} }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// goldenRecords are the records of testdata/payload.golden.
func goldenRecords(t *testing.T) [][]byte {
	t.Helper()
	heat := telemetry.Sample{Device: "heat-meter-1", Kind: "heat_meter", Time: stamp, Readings: []telemetry.Reading{
		{Point: "flow_temp", Value: telemetry.FloatValue(84.2)},
		{Point: "flow", Value: telemetry.FloatValue(12)},
		{Point: "energy", Value: telemetry.FloatValue(1.5e18)},
		{Point: "error_bits", Value: telemetry.IntValue(-3)},
		{Point: "serial", Value: telemetry.StringValue("a \"b\"\\\nc 鹿泉")},
	}}
	bad := telemetry.Sample{Device: "make-up", Kind: "level", Group: 2, Time: stamp.Add(time.Second),
		Tags: []telemetry.Tag{{Key: "area", Value: "boiler house, east=1"}, {Key: "system", Value: "二次网"}},
		Readings: []telemetry.Reading{
			{Point: "level", Quality: telemetry.UnderRange},
			{Point: "temp", Value: telemetry.FloatValue(-0.00000125), Quality: telemetry.OutOfRange},
		}}
	silent := telemetry.Sample{Device: "supply-pump", Kind: "pump", Group: 1, Time: stamp.Add(2 * time.Second), Status: telemetry.NoReply}
	return [][]byte{
		must(Store(heat, site, gateway, telemetry.ClockTrusted, time.Minute)),
		must(Store(bad, site, gateway, telemetry.ClockUnsure, time.Minute)),
		must(Store(silent, site, gateway, telemetry.ClockHub, 0)),
		must(StoreGap(telemetry.Gap{LostEpoch: 77, First: 3, Last: 9, From: stamp, To: stamp.Add(time.Hour), Reason: "buffer full"},
			site, gateway, telemetry.ClockTrusted, 0)),
		must(StoreEpochEnd(telemetry.EpochEnd{Ended: 77, Last: 9, Reason: "power cut"}, site, gateway, stamp, telemetry.ClockMonotonic, 0)),
	}
}

func linesOf(t *testing.T, stored [][]byte, first uint64) [][]byte {
	t.Helper()
	var lines [][]byte
	for i, s := range stored {
		l, err := AppendLine(nil, s, epoch, first+uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("LUQUAN_UPDATE_GOLDEN") == "1" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (LUQUAN_UPDATE_GOLDEN=1 writes it anew)\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

func TestGoldenPayload(t *testing.T) {
	stored := goldenRecords(t)
	payload := must(Encode(header(len(stored)), linesOf(t, stored, 1200), false))
	golden(t, "payload.golden", payload)
	p, err := Decode(liveTopic(false), payload)
	if err != nil {
		t.Fatal(err)
	}
	if p.Header != header(len(stored)) {
		t.Errorf("header came back as %+v", p.Header)
	}
	kinds := []Kind{Reading, Reading, Reading, Gap, EpochEnd}
	for i, r := range p.Records {
		if r.Err != nil || r.Kind != kinds[i] || r.Seq != 1200+uint64(i) {
			t.Errorf("record %d: kind %v, seq %d, error %v", i, r.Kind, r.Seq, r.Err)
		}
	}
	if s := p.Records[0].Sample.Readings[4].Value.Str(); s != "a \"b\"\\ c 鹿泉" {
		t.Errorf("string came back as %q", s)
	}
	if tag := p.Records[1].Sample.Tags[0].Value; tag != "boiler house, east=1" {
		t.Errorf("tag came back as %q", tag)
	}
	if c := p.Records[1].Sample.Clock; c != telemetry.ClockUnsure {
		t.Errorf("clock came back as %d", c)
	}
	if g := p.Records[3].Gap; g.LostEpoch != 77 || g.First != 3 || g.Last != 9 || !g.From.Equal(stamp) || g.Reason != "buffer full" {
		t.Errorf("gap came back as %+v", g)
	}
	if e := p.Records[4].End; e != (telemetry.EpochEnd{Ended: 77, Last: 9, Reason: "power cut"}) {
		t.Errorf("epoch end came back as %+v", e)
	}
}

// TestStoredFormStays holds the bytes that boards in the field have on flash.
func TestStoredFormStays(t *testing.T) {
	var b bytes.Buffer
	for _, s := range goldenRecords(t) {
		fmt.Fprintf(&b, "%q\n", s)
	}
	golden(t, "stored.golden", b.Bytes())
}

func randomSample(r *rand.Rand) telemetry.Sample {
	s := telemetry.Sample{Device: fmt.Sprintf("d-%d", r.IntN(1000)), Kind: "heat_meter", Group: r.IntN(9),
		Time: time.Unix(0, r.Int64()).UTC()}
	if r.IntN(3) == 0 {
		s.Tags = append(s.Tags, telemetry.Tag{Key: "asset", Value: randomText(r, "ab,= \"é楼", 1)})
	}
	codes := []telemetry.Quality{0, 0, 0, 20, 21, 30, 31, 40, 50, 51, 52, 53, 7, 99}
	for i := range r.IntN(40) {
		rd := telemetry.Reading{Point: fmt.Sprintf("p%d", i), Quality: codes[r.IntN(len(codes))]}
		if rd.Quality.HasValue() {
			switch r.IntN(3) {
			case 0:
				for rd.Value.IsZero() {
					rd.Value = telemetry.FloatValue(math.Float64frombits(r.Uint64()))
				}
			case 1:
				rd.Value = telemetry.IntValue(int64(r.Uint64()))
			default:
				rd.Value = telemetry.StringValue(randomText(r, "ab,= \"\\é楼#i", 0))
			}
		}
		s.Readings = append(s.Readings, rd)
	}
	return s
}

func randomText(r *rand.Rand, alphabet string, least int) string {
	runes, b := []rune(alphabet), strings.Builder{}
	for range least + r.IntN(9) {
		b.WriteRune(runes[r.IntN(len(runes))])
	}
	return b.String()
}

// TestRoundTrip: what is stored, published, compressed and decoded is what
// was polled, for any values; and encoding twice gives the same bytes.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var samples []telemetry.Sample
		var stored [][]byte
		clock := telemetry.Clock(r.IntN(4))
		for range 1 + r.IntN(5) {
			s := randomSample(r)
			samples = append(samples, s)
			stored = append(stored, must(Store(s, site, gateway, clock, time.Duration(r.Int64N(1e15)))))
		}
		zst := r.IntN(2) == 0
		h := header(len(stored))
		payload := must(Encode(h, linesOf(t, stored, h.First), zst))
		if again := must(Encode(h, linesOf(t, stored, h.First), zst)); !bytes.Equal(payload, again) {
			t.Fatalf("seed %d: encoded twice, two results", seed)
		}
		p, err := Decode(liveTopic(zst), payload)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i, got := range p.Records {
			want := telemetry.Record{Site: site, Gateway: gateway, Epoch: epoch, Seq: h.First + uint64(i), Clock: clock, Sample: samples[i]}
			if got.Err != nil || !reflect.DeepEqual(got.Sample, want) {
				t.Fatalf("seed %d: error %v\n got %+v\nwant %+v\nline %s", seed, got.Err, got.Sample, want, got.Line)
			}
			if i := bytes.IndexByte(got.Line, '\n'); i >= 0 {
				t.Fatalf("seed %d: a newline in a line", seed)
			}
		}
	}
}

func TestFloatsHavePointOrExponent(t *testing.T) {
	for f, want := range map[float64]string{0: "0.0", 84: "84.0", 1e6: "1000000.0", 1e15: "1e+15", 0.1: "0.1", 1e-5: "0.00001", 9e-6: "9e-06",
		-12345678.5: "-12345678.5", math.MaxFloat64: "1.7976931348623157e+308", 5e-324: "5e-324"} {
		if got := string(appendFloat(nil, f)); got != want {
			t.Errorf("%v is written %s, want %s", f, got, want)
		}
	}
}

func TestStoreRefuses(t *testing.T) {
	good := telemetry.Sample{Device: "d", Kind: "pump", Time: stamp, Readings: []telemetry.Reading{{Point: "flow", Value: telemetry.IntValue(1)}}}
	if _, err := Store(good, site, gateway, 0, 0); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*telemetry.Sample){
		"kind of a gap":  func(s *telemetry.Sample) { s.Kind = "gateway_gap" },
		"device name":    func(s *telemetry.Sample) { s.Device = "D 1" },
		"negative group": func(s *telemetry.Sample) { s.Group = -1 },
		"reserved point": func(s *telemetry.Sample) { s.Readings = []telemetry.Reading{{Point: "seq"}} },
		"point twice":    func(s *telemetry.Sample) { s.Readings = append(s.Readings, s.Readings[0]) },
		"unknown tag":    func(s *telemetry.Sample) { s.Tags = []telemetry.Tag{{Key: "room", Value: "1"}} },
		"tag backslash":  func(s *telemetry.Sample) { s.Tags = []telemetry.Tag{{Key: "area", Value: `a\`}} },
		"tag newline":    func(s *telemetry.Sample) { s.Tags = []telemetry.Tag{{Key: "area", Value: "a\nb"}} },
		"tags not sorted": func(s *telemetry.Sample) {
			s.Tags = []telemetry.Tag{{Key: "system", Value: "1"}, {Key: "area", Value: "2"}}
		},
		"line too long": func(s *telemetry.Sample) {
			s.Readings[0].Value = telemetry.StringValue(strings.Repeat("x", MaxLine-150))
		},
	} {
		s := good
		s.Readings = slices.Clone(good.Readings)
		change(&s)
		if _, err := Store(s, site, gateway, 0, 0); err == nil {
			t.Errorf("%s: stored", what)
		}
	}
	if _, err := Store(good, "No", gateway, 0, 0); err == nil {
		t.Error("a bad site name was stored")
	}
	if _, err := Store(good, site, gateway, 4, 0); err == nil {
		t.Error("an unknown clock code was stored")
	}
}

// TestLongestLine: whatever Store takes, AppendLine keeps to MaxLine.
func TestLongestLine(t *testing.T) {
	s := telemetry.Sample{Device: "d", Kind: "pump", Time: time.Unix(0, math.MinInt64), Readings: []telemetry.Reading{{Point: "x"}}}
	n := MaxLine
	for ; ; n-- {
		s.Readings[0].Value = telemetry.StringValue(strings.Repeat("x", n))
		stored, err := Store(s, site, gateway, telemetry.ClockUnsure, 0)
		if err != nil {
			continue
		}
		line := must(AppendLine(nil, stored, MaxEpoch, math.MaxInt64))
		if len(line) > MaxLine || len(line) < MaxLine-8 {
			t.Errorf("the longest line has %d bytes, want at most and about %d", len(line), MaxLine)
		}
		return
	}
}

func TestBadValueIsNeverCarried(t *testing.T) {
	s := telemetry.Sample{Device: "d", Kind: "pump", Time: stamp, Readings: []telemetry.Reading{
		{Point: "flow", Value: telemetry.FloatValue(3), Quality: telemetry.Invalid}}}
	line := must(AppendLine(nil, must(Store(s, site, gateway, 0, 0)), epoch, 1))
	if bytes.Contains(line, []byte("flow=")) || !bytes.Contains(line, []byte("flow_q=40i,status=0i,group=0i,bad_points=1i")) {
		t.Errorf("line is %s", line)
	}
}

func TestWithStamp(t *testing.T) {
	for i, stored := range goldenRecords(t) {
		before := bytes.Clone(stored)
		kind, s, err := StampOf(stored)
		if err != nil {
			t.Fatal(err)
		}
		moved, err := WithStamp(stored, Stamp{Time: s.Time + 5e9, Clock: telemetry.ClockMonotonic, Mono: s.Mono})
		if err != nil || !bytes.Equal(stored, before) {
			t.Fatalf("record %d: error %v, or the original was changed", i, err)
		}
		k, m, _ := StampOf(moved)
		if k != kind || m.Time != s.Time+5e9 || m.Clock != telemetry.ClockMonotonic || m.Mono != s.Mono {
			t.Errorf("record %d: moved stamp is %+v", i, m)
		}
		line := must(AppendLine(nil, moved, epoch, 1))
		if !bytes.HasSuffix(line, fmt.Appendf(nil, ",clock=1i,epoch=%di,seq=1i %d", epoch, s.Time+5e9)) {
			t.Errorf("record %d: line is %s", i, line)
		}
	}
}

// TestOneBadLineSpoilsNoOther: each of these in the middle of three.
func TestOneBadLineSpoilsNoOther(t *testing.T) {
	const tail = ",status=0i,group=0i,epoch=4837201i,seq=1201i 1763850000123456789"
	const head = "pump,site=heating-east,gateway=boiler-house-1,device=d "
	for what, line := range map[string]string{
		"empty":            "",
		"comment":          "# hello",
		"no fields":        "pump,site=heating-east",
		"another gateway":  "pump,site=heating-east,gateway=other,device=d flow=1.0" + tail,
		"another site":     "pump,site=elsewhere,gateway=boiler-house-1,device=d flow=1.0" + tail,
		"unknown tag":      "pump,site=heating-east,gateway=boiler-house-1,device=d,room=1 flow=1.0" + tail,
		"no device":        "pump,site=heating-east,gateway=boiler-house-1 flow=1.0" + tail,
		"NaN":              head + "flow=NaN" + tail,
		"infinity":         head + "flow=+Inf" + tail,
		"huge float":       head + "flow=1e999" + tail,
		"hex float":        head + "flow=0x1p-2" + tail,
		"float as int":     head + "flow=84" + tail,
		"boolean":          head + "flow=true" + tail,
		"int overflow":     head + "flow=9223372036854775808i" + tail,
		"open string":      head + `flow="abc` + tail,
		"field twice":      head + "flow=1.0,flow=2.0" + tail,
		"reserved point":   head + "host=1.0" + tail,
		"value and bad":    head + "flow=1.0,flow_q=52i,bad_points=1i" + tail,
		"bad points wrong": head + "flow_q=52i" + tail,
		"quality float":    head + "flow_q=1.0" + tail,
		"quality big":      head + "flow_q=256i,bad_points=1i" + tail,
		"seq differs":      head + "flow=1.0,status=0i,group=0i,epoch=4837201i,seq=1205i 1",
		"epoch differs":    head + "flow=1.0,status=0i,group=0i,epoch=1i,seq=1201i 1",
		"no status":        head + "flow=1.0,group=0i,epoch=4837201i,seq=1201i 1",
		"no stamp":         head + "flow=1.0,status=0i,group=0i,epoch=4837201i,seq=1201i",
		"bad stamp":        head + "flow=1.0,status=0i,group=0i,epoch=4837201i,seq=1201i 1.5",
		"clock 4":          head + "flow=1.0,clock=4i" + tail,
		"not UTF-8":        head + "flow=\"\xff\"" + tail,
		"too long":         head + "flow=\"" + strings.Repeat("x", MaxLine) + "\"" + tail,
		"empty gap":        "gateway_gap,site=heating-east,gateway=boiler-house-1 first=5i,last=4i,lost_epoch=1i,from=1i,to=2i,reason=\"x\",epoch=4837201i,seq=1201i 2",
	} {
		lines := linesOf(t, goldenRecords(t)[:3], 1200)
		lines[1] = []byte(line)
		p, err := Decode(liveTopic(false), must(Encode(header(3), lines, false)))
		if err != nil {
			t.Errorf("%s: the whole payload was refused: %v", what, err)
			continue
		}
		if r := p.Records[1]; r.Err == nil || r.Seq != 1201 || r.Epoch != epoch || string(r.Line) != line || r.Kind != 0 {
			t.Errorf("%s: taken as %+v", what, r)
		}
		if p.Records[0].Err != nil || p.Records[2].Err != nil {
			t.Errorf("%s: spoiled its neighbours: %v, %v", what, p.Records[0].Err, p.Records[2].Err)
		}
	}
}

func TestUnknownColumnsOfALaterVersion(t *testing.T) {
	const line = `pump,site=heating-east,gateway=boiler-house-1,device=d gateway_phase=1.0,flow=1.0,status=0i,group=0i,epoch=4837201i,seq=1200i 1`
	p, err := Decode(liveTopic(false), must(Encode(header(1), [][]byte{[]byte(line)}, false)))
	if err != nil || p.Records[0].Err != nil || len(p.Records[0].Sample.Readings) != 1 {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestHeaderErrors(t *testing.T) {
	lines := linesOf(t, goldenRecords(t)[:1], 1200)
	good := string(must(Encode(header(1), lines, false)))
	head, body, _ := strings.Cut(good, "\n")
	for what, payload := range map[string]string{
		"empty":         "",
		"no header":     body,
		"version 2":     strings.Replace(good, "#luquan 1", "#luquan 2", 1),
		"count 2":       strings.Replace(good, "count=1 ", "count=2 ", 1),
		"count 0":       head + "\n",
		"extra line":    good + "x\n",
		"empty line":    good + "\n",
		"epoch 0":       strings.Replace(good, "epoch=4837201", "epoch=0", 1),
		"epoch 2^53":    strings.Replace(good, "epoch=4837201", "epoch=9007199254740992", 1),
		"epoch text":    strings.Replace(good, "epoch=4837201", "epoch=x", 1),
		"first 0":       strings.Replace(good, "first=1200", "first=0", 1),
		"first -1":      strings.Replace(good, "first=1200", "first=-1", 1),
		"first max":     strings.Replace(good, "first=1200", "first=9223372036854775807", 1),
		"wrong lane":    strings.Replace(good, "lane=live", "lane=backfill", 1),
		"no session":    strings.Replace(good, " session=5f1c", "", 1),
		"no sent":       strings.Replace(good, " sent=1763850000456000000", "", 1),
		"twice":         strings.Replace(good, " sent=", " sent=1 sent=", 1),
		"cfg":           strings.Replace(good, "cfg=9f86d081", "cfg=9F86D081", 1),
		"stray word":    strings.Replace(good, " cfg=", " word cfg=", 1),
		"header no end": head,
	} {
		if payload == good {
			t.Fatalf("%s: changes nothing", what)
		}
		if _, err := Decode(liveTopic(false), []byte(payload)); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if _, err := Decode(liveTopic(false), []byte(strings.Replace(good, " cfg=", " future=1 cfg=", 1))); err != nil {
		t.Errorf("a key of a later version was refused: %v", err)
	}
	if _, err := Decode(Topic{Site: site, Gateway: gateway, What: StateDoc}, []byte(good)); err == nil {
		t.Error("a payload on the topic of state was taken")
	}
}

func TestBombs(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	frame := enc.EncodeAll(make([]byte, MaxPayload/2), nil)
	for what, payload := range map[string][]byte{
		"one frame of 64 MiB":          enc.EncodeAll(make([]byte, 64<<20), nil),
		"many frames, together 10 GiB": bytes.Repeat(frame, 20000),
		"not zstd":                     []byte("#luquan 1"),
		"over 1 MiB of input":          make([]byte, MaxPayload+1),
	} {
		if len(payload) > MaxPayload+1 {
			payload = payload[:MaxPayload/len(frame)*len(frame)]
		}
		start := time.Now()
		if _, err := Decode(liveTopic(true), payload); err == nil {
			t.Errorf("%s: taken", what)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: took %v", what, d)
		}
	}
}

// TestTwice: a name that comes twice is found however many there are, and names that differ never are.
func TestTwice(t *testing.T) {
	for _, n := range []int{2, 3, 511, 512, 513, 2000} {
		s := telemetry.Sample{Device: "d", Kind: "pump", Time: stamp}
		for i := range n {
			s.Readings = append(s.Readings, telemetry.Reading{Point: fmt.Sprint("p", i), Quality: telemetry.Good, Value: telemetry.IntValue(1)})
		}
		if _, err := Store(s, site, gateway, 0, 0); err != nil {
			t.Fatalf("%d names: %v", n, err)
		}
		s.Readings[n-1].Point = s.Readings[n/2-1].Point
		if _, err := Store(s, site, gateway, 0, 0); err == nil {
			t.Errorf("%d names: one that comes twice was taken", n)
		}
	}
}
