package console

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/alarm"
	"luquan/gateway/hub/health"
	"luquan/gateway/hub/history"
	"luquan/gateway/hub/ledger"
	"luquan/gateway/hub/live"
	"luquan/gateway/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a hub's centre with three sites of test data and nothing behind it.
type bench struct {
	feed   *live.Feed
	alarms *alarmList
	server *httptest.Server
	stop   context.CancelFunc

	mu   sync.Mutex
	seq  map[string]uint64 // by gateway
	devs []benchDevice

	watch health.Watch
	world health.World // without Points: those of the feed
}

// chain judges what the feed holds, behind boards that are online.
func (b *bench) chain() *health.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, w := time.Now(), b.world
	if w.Boards == nil {
		for _, d := range b.devs {
			w.Boards = append(w.Boards, health.Board{Site: d.site, Name: d.gateway, Heard: true, Online: true, StateAt: now.Add(-time.Hour), PayloadAt: now})
		}
	}
	if w.Points == nil {
		entries, _ := b.feed.Snapshot("")
		for _, e := range entries {
			w.Points = append(w.Points, health.Point{Site: e.Site, Gateway: e.Gateway, Bus: e.Bus, Device: e.Device, Point: e.Point, Name: e.Name,
				DeviceLabel: e.DeviceLabel, Label: e.Label, Period: e.Period, Status: e.Status, Quality: e.Quality,
				Polled: !e.Time.IsZero(), Stale: e.Stale(now), Good: e.LastTime})
		}
	}
	return b.watch.Judge(now, w)
}

type benchDevice struct {
	site, gateway string
	info          telemetry.DeviceInfo
	values        []float64
}

func limits(lo, hi float64) (*float64, *float64) { return &lo, &hi }

func float(name, unit, zh, en string, r ...float64) telemetry.Point {
	p := telemetry.Point{Name: name, Class: telemetry.Float, Unit: unit, Label: telemetry.Label{Zh: zh, En: en}}
	if len(r) == 2 {
		p.Min, p.Max = limits(r[0], r[1])
	}
	return p
}

func dev(site, gateway, name, kind, bus, zh, en string, every time.Duration, values []float64, points ...telemetry.Point) benchDevice {
	return benchDevice{site, gateway, telemetry.DeviceInfo{
		Name: name, Kind: kind, Bus: bus, Profile: "profile-of-" + name, Label: telemetry.Label{Zh: zh, En: en},
		Groups: []telemetry.Group{{Every: every, Points: points}},
	}, values}
}

// benchDevices are shaped like the sites of firmware-config/sites.
func benchDevices() []benchDevice {
	s := time.Second
	mode := telemetry.Point{Name: "control_mode", Class: telemetry.Int, Label: telemetry.Label{Zh: "控制方式", En: "Control mode"},
		Enum: map[int64]telemetry.Label{0: {Zh: "恒转速", En: "constant speed"}, 3: {Zh: "恒扬程", En: "constant head"}}}
	state := telemetry.Point{Name: "pump_status", Class: telemetry.Int, Label: telemetry.Label{Zh: "状态位", En: "Status bits"},
		Bits: map[int64]telemetry.Label{9: {Zh: "运行", En: "running"}, 10: {Zh: "报警", En: "alarm"}}}
	energy := float("energy_import", "Wh", "正向有功电能", "Active energy import")
	energy.Counter = true
	out := []benchDevice{
		dev("heating-east", "boiler-house-1", "heat-meter-1", "heat_meter", "meters", "1号热量表", "Heat meter 1", 10*s,
			[]float64{84.2, 46.0, 12.51, 1.98e6}, float("t1_flow", "degC", "供水温度", "Flow temperature", 0, 150),
			float("t2_return", "degC", "回水温度", "Return temperature", 0, 150), float("flow_1", "L/s", "流量", "Flow", 0, 40),
			float("power", "W", "热功率", "Heat power", 0, 5e6)),
		dev("heating-east", "boiler-house-1", "supply-pump", "pump", "meters", "供水泵", "Supply pump", 2*s,
			[]float64{0.58, 12.4, 62.1, 1450, 4120, 3, 512}, float("head", "bar", "扬程", "Head", 0, 2), float("flow", "L/s", "流量", "Flow", 0, 40),
			float("performance", "%", "相对出力", "Relative performance", 0, 100), float("speed", "rpm", "转速", "Motor speed", 0, 3600),
			float("power", "W", "电功率", "Electrical power", 0, 11000), mode, state),
		dev("heating-east", "boiler-house-1", "boiler-house-1", "gateway_health", "", "锅炉房网关", "Boiler-house gateway", 10*s,
			[]float64{41.5, 12.3, 86400 * 3.4}, float("cpu_temp", "degC", "处理器温度", "Processor temperature", 0, 85),
			float("load", "%", "负载", "Load", 0, 100), float("uptime", "s", "运行时间", "Uptime")),
		dev("sewage-west", "pump-station-1", "sump-level", "level", "level", "集水井液位", "Sump level", 2*s,
			[]float64{3.61}, float("level", "m", "集水井液位", "Sump level", 0, 5)),
		dev("sewage-west", "pump-station-1", "aeration-probe", "water_analyser", "probes", "曝气池探头", "Aeration probe", 5*s,
			[]float64{2.1, 7.2, 18.4, 1210}, float("dissolved_oxygen", "mg/L", "溶解氧", "Dissolved oxygen", 0, 20), float("ph", "", "酸碱度 pH", "pH", 0, 14),
			float("temperature", "degC", "水温", "Water temperature", 0, 60), float("conductivity", "uS/cm", "电导率", "Conductivity", 0, 5000)),
		dev("sewage-west", "pump-station-1", "lift-pump-2", "pump", "pumps", "2号提升泵", "Lift pump 2", 2*s,
			[]float64{0.92, 86.7, 88, 2210, 7450}, float("head", "bar", "扬程", "Head", 0, 2), float("flow", "L/s", "流量", "Flow", 0, 120),
			float("performance", "%", "相对出力", "Relative performance", 0, 100), float("speed", "rpm", "转速", "Motor speed", 0, 3600),
			float("power", "W", "电功率", "Electrical power", 0, 11000)),
		dev("compute-north", "row-a", "rack-power-1", "power_meter", "meters", "A列机柜电表", "Row A power meter", 5*s,
			[]float64{412e3, 231.4, 598.2, 49.98, 98765432100}, float("p_total", "W", "有功功率", "Active power", 0, 600e3),
			float("u_avg", "V", "平均电压", "Average voltage", 0, 300), float("i_avg", "A", "平均电流", "Average current", 0, 1000),
			float("frequency", "Hz", "频率", "Frequency", 45, 55), energy),
		dev("compute-north", "row-a", "ups-1", "ups", "ups-lan", "1号不间断电源", "UPS 1", 5*s,
			[]float64{61.2, 100, 2520}, float("load", "%", "负载率", "Load", 0, 100), float("battery_charge", "%", "电池电量", "Battery charge", 0, 100),
			float("runtime", "s", "后备时间", "Runtime left")),
	}
	for i := 1; i <= 3; i++ {
		out = append(out, dev("compute-north", "row-a", fmt.Sprintf("cold-aisle-%d", i), "temp_humidity", "sensors",
			fmt.Sprintf("冷通道%d", i), fmt.Sprintf("Cold aisle %d", i), 5*s, []float64{23.8 + float64(i)/10, 45.5},
			float("temperature", "degC", "温度", "Temperature", -20, 60), float("humidity", "%", "相对湿度", "Relative humidity", 0, 100)))
	}
	return out
}

var benchSites = []Site{
	{Name: "heating-east", Label: telemetry.Label{Zh: "供热站", En: "Heating plant"}},
	{Name: "sewage-west", Label: telemetry.Label{Zh: "污水处理厂", En: "Sewage works"}, Key: []string{"sump-level/level", "aeration-probe/dissolved_oxygen", "aeration-probe/ph", "lift-pump-2/flow", "lift-pump-2/speed", "lift-pump-2/power"}},
	{Name: "compute-north", Label: telemetry.Label{Zh: "智算中心", En: "Computing centre"}},
}

func newBench(t testing.TB, edit func(*Options)) *bench {
	t.Helper()
	b := &bench{feed: live.New(live.Options{}), alarms: &alarmList{}, seq: map[string]uint64{}, devs: benchDevices()}
	byGateway := map[[2]string][]telemetry.DeviceInfo{}
	for _, d := range b.devs {
		k := [2]string{d.site, d.gateway}
		byGateway[k] = append(byGateway[k], d.info)
	}
	for k, infos := range byGateway {
		b.feed.Describe(k[0], k[1], infos)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	start := time.Now()
	opt := Options{
		Feed: b.feed, Sites: benchSites, Alarms: b.alarms, History: b,
		Limits: func(point string) []Limit {
			switch point {
			case "sewage-west/sump-level/level":
				return []Limit{{"high_high", 4.2, "critical"}, {"high", 3.5, "high"}, {"low", 0.6, "medium"}}
			case "heating-east/heat-meter-1/t1_flow":
				return []Limit{{"low", 60, "high"}, {"high", 110, "high"}}
			}
			return nil
		},
		Gateways: func() []Gateway {
			var out []Gateway
			for k, infos := range byGateway {
				out = append(out, Gateway{Name: k[0] + "/" + k[1], Site: k[0], Gateway: k[1], Online: k[1] != "row-a", Since: start, Last: time.Now().Add(-2 * time.Second), Version: "0.1.0", Devices: len(infos), Held: 3, Late: 120 * time.Millisecond})
			}
			return out
		},
		Health: func() []Component {
			return []Component{
				{Name: "broker", Label: telemetry.Label{Zh: "消息代理", En: "Broker"}, State: "ok", Since: start},
				{Name: "store", Label: telemetry.Label{Zh: "存储", En: "Store"}, State: "warn", Since: start, Detail: telemetry.Label{Zh: "最旧未写 12 s", En: "oldest unwritten 12 s"}},
			}
		},
		Chain: b.chain,
		Journal: func(context.Context, JournalQuery) ([]JournalEntry, error) {
			var out []JournalEntry
			for _, a := range b.alarms.Alarms() {
				out = append(out, JournalEntry{Time: a.Start, At: a.Start.Add(time.Second), Kind: "raised", Alarm: &a, AlarmID: a.ID}, pageEntry(a))
			}
			return out, nil
		},
		Ledger: func(context.Context, LedgerQuery) ([]ledger.Row, error) {
			return []ledger.Row{{Site: "heating-east", Gateway: "boiler-house-1", Epoch: 4837201, First: 1, Last: 40000, Stored: 39990, Lost: 4, Missing: 6}}, nil
		},
	}
	if edit != nil {
		edit(&opt)
	}
	b.server = httptest.NewUnstartedServer(Handler(opt))
	b.server.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	b.server.Start()
	t.Cleanup(func() { cancel(); b.server.Close() })
	b.pollAll(time.Now())
	return b
}

// poll makes one good record of device i, its values a little moved.
func (b *bench) poll(i int, at time.Time, status telemetry.Quality) {
	b.mu.Lock()
	d := &b.devs[i]
	b.seq[d.gateway]++
	r := telemetry.Record{Site: d.site, Gateway: d.gateway, Epoch: 1, Seq: b.seq[d.gateway], Sample: telemetry.Sample{
		Device: d.info.Name, Kind: d.info.Kind, Time: at, Status: status,
	}}
	if status == telemetry.Good {
		for k, p := range d.info.Groups[0].Points {
			v := d.values[k] * (1 + 0.004*math.Sin(float64(at.UnixMilli())/3000+float64(k)))
			val := telemetry.FloatValue(v)
			if p.Class == telemetry.Int {
				val = telemetry.IntValue(int64(d.values[k]))
			}
			r.Readings = append(r.Readings, telemetry.Reading{Point: p.Name, Value: val})
		}
	}
	b.mu.Unlock()
	b.feed.Apply(r, time.Now())
}

func (b *bench) pollAll(at time.Time) {
	for i := range b.devs {
		b.poll(i, at, telemetry.Good)
	}
}

func (b *bench) find(device string) int {
	for i := range b.devs {
		if b.devs[i].info.Name == device {
			return i
		}
	}
	panic("no device " + device)
}

// Query is a sine with a stretch without a reply.
func (b *bench) Query(_ context.Context, q history.Query) ([]history.Bucket, error) {
	e, _ := b.feed.Get(q.Point)
	base := e.LastValue.Float()
	var out []history.Bucket
	for i := range q.Buckets {
		x := float64(i) / float64(q.Buckets)
		at := q.From.Add(time.Duration(i) * q.Width())
		if x > 0.6 && x < 0.64 {
			out = append(out, history.Bucket{Start: at, Worst: telemetry.NoReply})
			continue
		}
		v := base * (1 + 0.05*math.Sin(x*9) + 0.004*math.Sin(x*400))
		out = append(out, history.Bucket{Start: at, Min: v * 0.99, Mean: v, Max: v * 1.012, Last: v, Count: 6})
	}
	return out, nil
}

// alarmList is a list of alarms that remembers who acknowledged.
type alarmList struct {
	mu      sync.Mutex
	list    []alarm.Alarm
	version uint64
	who     string
}

func (l *alarmList) Alarms() []alarm.Alarm {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]alarm.Alarm(nil), l.list...)
}

func (l *alarmList) Version() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.version
}

func (l *alarmList) Ack(_ context.Context, id, who string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.list {
		if l.list[i].ID != id {
			continue
		}
		switch a := &l.list[i]; a.State {
		case alarm.Suppressed:
			return fmt.Errorf("ack %s: %w", id, alarm.ErrSuppressed)
		case alarm.ReturnedUnacknowledged:
			l.list = append(l.list[:i], l.list[i+1:]...)
		default:
			a.State, a.AckedBy, a.AckedAt = alarm.Acknowledged, who, time.Now()
		}
		l.who = who
		l.version++
		return nil
	}
	return fmt.Errorf("ack %s: %w", id, alarm.ErrUnknown)
}

func (l *alarmList) add(a alarm.Alarm) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.ID = fmt.Sprintf("%s|%s|%d", a.Rule, a.Point, a.Start.UnixNano())
	l.list = append(l.list, a)
	l.version++
}

// fill gives the list one alarm of each look.
func (l *alarmList) fill(now time.Time) {
	lim := 3.5
	l.add(alarm.Alarm{Rule: "sump-high", Type: alarm.High, Point: "sewage-west/sump-level/level", Priority: alarm.HighPrio, State: alarm.Unacknowledged,
		Start: now.Add(-95 * time.Second), Value: telemetry.FloatValue(3.61), Unit: "m", Limit: &lim, Message: telemetry.Label{Zh: "集水井液位高", En: "Sump level high"}, Help: telemetry.Label{Zh: "检查提升泵", En: "Check the lift pumps"}})
	l.add(alarm.Alarm{Rule: "pump-silent", Type: alarm.Absent, Point: "sewage-west/lift-pump-2/speed", Priority: alarm.Critical, State: alarm.Unacknowledged,
		Start: now.Add(-31 * time.Second), Quality: telemetry.NoReply, Message: telemetry.Label{Zh: "2号提升泵失联", En: "Lift pump 2 does not answer"}})
	cold := 27.0
	l.add(alarm.Alarm{Rule: "aisle-warm", Type: alarm.High, Point: "compute-north/cold-aisle-2/temperature", Priority: alarm.MediumPrio, State: alarm.Acknowledged,
		Start: now.Add(-50 * time.Minute), AckedBy: "operator", AckedAt: now.Add(-40 * time.Minute), Value: telemetry.FloatValue(27.4), Unit: "degC", Limit: &cold, Message: telemetry.Label{Zh: "冷通道温度偏高", En: "Cold aisle warm"}})
	l.add(alarm.Alarm{Rule: "return-low", Type: alarm.Low, Point: "heating-east/heat-meter-1/t2_return", Priority: alarm.LowPrio, State: alarm.ReturnedUnacknowledged,
		Start: now.Add(-3 * time.Hour), Cleared: now.Add(-170 * time.Minute), Value: telemetry.FloatValue(29.8), Unit: "degC", Message: telemetry.Label{Zh: "回水温度低", En: "Return temperature low"}})
}

func (b *bench) get(t testing.TB, path string, header ...string) *http.Response {
	t.Helper()
	return b.do(t, "GET", path, header...)
}

func (b *bench) do(t testing.TB, method, path string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, b.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// restart serves handler at addr, as a hub that was started again.
func restart(t *testing.T, addr string, handler http.Handler) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler, BaseContext: func(net.Listener) context.Context { return ctx }}}
	s.Start()
	return func() { cancel(); s.CloseClientConnections(); s.Close() }
}

// Pages in the journal name their alarm by id alone, as the hub's assembly
// hands them over.
func pageEntry(a alarm.Alarm) JournalEntry {
	return JournalEntry{Time: a.Start.Add(2 * time.Second), Kind: "page delivered", AlarmID: a.ID, Detail: telemetry.Label{Zh: "值班组 duty，经 phone，第 1 次", En: "duty by phone, attempt 1"}}
}
