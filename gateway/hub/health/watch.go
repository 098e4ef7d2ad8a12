package health

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"luquan/gateway/telemetry"
)

// slack is what a board is given beyond two of its periods before its silence
// counts, and after it has come before what it reads must be here.
const slack = 5 * time.Second

// Watch judges one World after another and remembers since when each node has
// been as it is. It is not safe for concurrent use.
type Watch struct {
	was map[ID]memory
}

type memory struct {
	state State
	since time.Time
}

// Judge tells the state of every node at now.
func (w *Watch) Judge(now time.Time, world World) *Report {
	j := &judgement{now: now, world: &world, was: w.was,
		r: &Report{At: now, world: &world, nodes: map[ID]*Node{}, place: make(map[string]int, len(world.Points))}}
	j.hub()
	for _, b := range j.boards() {
		j.board(b)
	}
	j.count()
	w.was = make(map[ID]memory, len(j.r.nodes))
	for id, n := range j.r.nodes {
		w.was[id] = memory{n.State, n.Since}
	}
	return j.r
}

// judgement is one call of Judge.
type judgement struct {
	now   time.Time
	world *World
	was   map[ID]memory
	r     *Report
}

// board is one gateway with the points it announced, by bus and device.
type board struct {
	Board
	buses map[string]map[string][]*Point
	every time.Duration // the shortest period
	fresh bool          // some point's last poll is not stale
	last  time.Time     // of the newest value
}

// set puts a node. since is when its state began, where that is known from
// what came; else it is the first report that had it so.
func (j *judgement) set(id ID, s State, since time.Time, label, why telemetry.Label) *Node {
	n := &Node{ID: id, State: s, Label: label, Since: since, Why: why}
	if was, known := j.was[id]; known && was.state == s {
		n.Since = was.since
	} else if since.IsZero() || since.After(j.now) {
		n.Since = j.now
	}
	j.r.nodes[id] = n
	return n
}

func (j *judgement) hub() {
	for level, p := range map[Level]Part{Broker: j.world.Broker, Store: j.world.Store} {
		s := OK
		if p.Down {
			s = Broken
		}
		j.set(ID{Level: level}, s, p.Since, telemetry.Label{}, p.Why)
	}
}

// boards brings points to their boards, in the order of their names.
func (j *judgement) boards() []*board {
	type key struct{ site, name string }
	all := map[key]*board{}
	get := func(k key) *board {
		if all[k] == nil {
			all[k] = &board{Board: Board{Site: k.site, Name: k.name}, buses: map[string]map[string][]*Point{}}
		}
		return all[k]
	}
	for _, b := range j.world.Boards {
		get(key{b.Site, b.Name}).Board = b
	}
	for i := range j.world.Points {
		p := &j.world.Points[i]
		j.r.place[p.Name] = i
		b := get(key{p.Site, p.Gateway})
		if b.buses[p.Bus] == nil {
			b.buses[p.Bus] = map[string][]*Point{}
		}
		b.buses[p.Bus][p.Device] = append(b.buses[p.Bus][p.Device], p)
		if p.Period > 0 && (b.every == 0 || p.Period < b.every) {
			b.every = p.Period
		}
		b.fresh = b.fresh || p.Polled && !p.Stale
		b.last = later(b.last, p.Good)
	}
	list := make([]*board, 0, len(all))
	for _, b := range all {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b *board) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// patience is how long the board may be silent.
func (b *board) patience() time.Duration { return 2*b.every + slack }

var (
	behind   = telemetry.Label{En: "out of sight: what stands above it is broken", Zh: "上级中断，状态未知"}
	starting = telemetry.Label{En: "it has only just come and is given time to speak", Zh: "刚上线，等待首批数据"}
)

// board judges ingest, link and board itself, from above to below, and then
// the buses.
func (j *judgement) board(b *board) {
	id := func(l Level) ID { return ID{Level: l, Site: b.Site, Gateway: b.Name} }
	ingest, link, own := OK, OK, OK
	var ingestSince, linkSince, ownSince time.Time
	var ingestWhy, linkWhy, ownWhy telemetry.Label
	age := func(at time.Time) time.Duration { return j.now.Sub(at) }
	switch {
	case j.world.Broker.Down:
		ingest, link, own, ingestWhy, linkWhy, ownWhy = Unknown, Unknown, Unknown, behind, behind, behind
	case b.Heard && !b.Online:
		link, linkSince, linkWhy = Broken, b.StateAt, telemetry.Label{
			En: "not connected: without power, without network, or stopped",
			Zh: "未连接：断电、断网或已停止"}
	case b.RefusedAt.After(b.PayloadAt):
		ingest, ingestSince, ingestWhy = Broken, b.RefusedAt, telemetry.Label{
			En: "what it sends cannot be read: " + b.Refused,
			Zh: "其数据无法解析：" + b.Refused}
	case !b.Heard && age(j.world.Start) < b.patience():
		link, own, linkWhy, ownWhy = Unknown, Unknown, starting, starting
	case !b.Heard:
		link, linkSince, linkWhy = Broken, b.last, telemetry.Label{
			En: "not heard since the hub was started: without power, without network, or its program does not run",
			Zh: "中心启动以来未收到其消息：断电、断网或程序未运行"}
	case b.fresh || len(b.buses) == 0:
	case age(b.StateAt) < b.patience():
		own, ownWhy = Unknown, starting
	case age(b.PayloadAt) < b.patience():
		lag := j.now.Sub(b.last).Round(time.Second)
		link, linkSince, linkWhy = Broken, b.last, telemetry.Label{
			En: fmt.Sprintf("what arrives is %v old: the link is slower than what the board reads, or its clock is wrong", lag),
			Zh: fmt.Sprintf("到达的数据已滞后 %v：链路过慢或网关时钟错误", lag)}
		if b.last.IsZero() {
			linkWhy = telemetry.Label{En: "what arrives is older than it should be: the link is slower than what the board reads, or its clock is wrong",
				Zh: "到达的数据滞后：链路过慢或网关时钟错误"}
		}
	default:
		own, ownSince, ownWhy = Broken, later(b.PayloadAt, b.StateAt), telemetry.Label{
			En: "connected, but no readings come from it",
			Zh: "已连接，但没有数据上送"}
	}
	if link == Broken {
		own, ownWhy = Unknown, behind
	}
	if ingest == Broken {
		link, own, linkWhy, ownWhy = OK, Unknown, telemetry.Label{}, behind
	}
	j.set(id(Ingest), ingest, ingestSince, telemetry.Label{}, ingestWhy)
	j.set(id(Link), link, linkSince, telemetry.Label{}, linkWhy)
	j.set(id(Gateway), own, ownSince, telemetry.Label{}, ownWhy)
	hidden := telemetry.Label{}
	switch {
	case own == Unknown && ownWhy == starting:
		hidden = starting
	case own != OK:
		hidden = behind
	}
	for name, devices := range b.buses {
		j.bus(ID{Level: Bus, Site: b.Site, Gateway: b.Name, Bus: name}, devices, hidden, later(b.StateAt, j.world.Start), b.patience())
	}
}

// bus judges a bus and its devices. hidden says why they are out of sight;
// the zero Label: they are not. up is since when their board can have spoken.
func (j *judgement) bus(id ID, devices map[string][]*Point, hidden telemetry.Label, up time.Time, patience time.Duration) {
	state, why, since := OK, hidden, time.Time{}
	dead, waiting := 0, 0
	var unreached bool
	if hidden != (telemetry.Label{}) {
		state = Unknown
	} else {
		for _, points := range devices {
			switch deviceState(points, j.now.Sub(up) < patience) {
			case Broken:
				dead++
				unreached = unreached || worst(points) == telemetry.NotConnected
				since = later(since, lastGood(points))
			case Unknown:
				waiting++
			}
		}
		switch {
		case dead > 0 && dead+waiting == len(devices) && unreached:
			state, why = Broken, telemetry.Label{
				En: "the port or endpoint cannot be opened: adapter unplugged, cable, or the converter has no power",
				Zh: "端口或地址无法打开：适配器脱落、线缆故障或串口服务器断电"}
		case dead > 1 && dead == len(devices):
			state, why = Broken, telemetry.Label{
				En: fmt.Sprintf("none of its %d devices answers: cable, converter, speed or parity", dead),
				Zh: fmt.Sprintf("总线上 %d 台设备均无应答：检查线缆、转换器、波特率和校验", dead)}
		}
	}
	if state != Broken {
		since = time.Time{}
	}
	j.set(id, state, since, telemetry.Label{}, why)
	if state == Broken {
		hidden = behind
	}
	for name, points := range devices {
		did := id
		did.Level, did.Device = Device, name
		j.device(did, points, hidden, j.now.Sub(up) < patience)
	}
}

// deviceState judges a device by its points alone.
func deviceState(points []*Point, young bool) State {
	never := true
	for _, p := range points {
		if !p.failed() {
			return OK
		}
		never = never && !p.Polled
	}
	if never && young {
		return Unknown
	}
	return Broken
}

func (j *judgement) device(id ID, points []*Point, hidden telemetry.Label, young bool) {
	state, why, since := Unknown, hidden, time.Time{}
	if hidden == (telemetry.Label{}) {
		switch state = deviceState(points, young); state {
		case Unknown:
			why = starting
		case Broken:
			why, since = deviceWhy(points), lastGood(points)
		}
	}
	j.set(id, state, since, points[0].DeviceLabel, why)
	if state != OK && hidden == (telemetry.Label{}) {
		hidden = behind
		if state == Unknown {
			hidden = starting
		}
	}
	for _, p := range points {
		sid := p.id()
		switch {
		case hidden != (telemetry.Label{}):
			j.set(sid, Unknown, time.Time{}, p.Label, hidden)
		case !p.Polled && young:
			j.set(sid, Unknown, time.Time{}, p.Label, starting)
		case p.silent():
			j.set(sid, Broken, p.Good, p.Label, sensorWhy(p))
		}
	}
}

// count gives every silent point its cause and lists the causes.
func (j *judgement) count() {
	r := j.r
	for i := range j.world.Points {
		p := &j.world.Points[i]
		if !p.silent() {
			continue
		}
		r.Silent++
		if n := r.cause(p.id()); n != nil {
			n.Silent++
		} else {
			r.Waiting++
		}
	}
	for _, n := range r.nodes {
		if n.State == Broken {
			r.list = append(r.list, n)
		}
	}
	slices.SortFunc(r.list, func(a, b *Node) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(b.Silent, a.Silent), cmp.Compare(a.Site, b.Site), cmp.Compare(a.Gateway, b.Gateway),
			cmp.Compare(a.Bus, b.Bus), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Point, b.Point))
	})
}

// worst returns the worst status of the points' last polls.
func worst(points []*Point) (q telemetry.Quality) {
	for _, p := range points {
		if p.Polled && !p.Stale {
			q = q.Worst(p.Status)
		}
	}
	return q
}

// lastGood returns when the last value of any of the points was read.
func lastGood(points []*Point) (t time.Time) {
	for _, p := range points {
		t = later(t, p.Good)
	}
	return t
}

func deviceWhy(points []*Point) telemetry.Label {
	switch worst(points) {
	case telemetry.NotConnected:
		return telemetry.Label{En: "cannot be reached: the endpoint refuses or its port is gone", Zh: "无法连接：端口拒绝或不存在"}
	case telemetry.NoReply:
		return telemetry.Label{En: "does not answer: power, wiring, or its address", Zh: "无应答：检查电源、接线和站号"}
	case telemetry.Garbled:
		return telemetry.Label{En: "its answers are damaged: interference, termination, or two devices with one address", Zh: "应答报文损坏：干扰、终端电阻或站号冲突"}
	case telemetry.Refused:
		return telemetry.Label{En: "refuses what it is asked: not the device the profile is for, or busy", Zh: "拒绝读取：型号与配置不符或设备忙"}
	case telemetry.Good:
		return telemetry.Label{En: "is not read in time, while other devices of its board are", Zh: "未按周期采集（同一网关的其他设备正常）"}
	}
	return telemetry.Label{En: "has no values", Zh: "没有有效数据"}
}

func sensorWhy(p *Point) telemetry.Label {
	switch {
	case !p.Polled:
		return telemetry.Label{En: "was never read", Zh: "从未读到"}
	case p.Stale:
		return telemetry.Label{En: "is not read in time, while other points of the device are", Zh: "未按周期采集（同一设备的其他测点正常）"}
	}
	switch p.Quality {
	case telemetry.OverRange:
		return telemetry.Label{En: "above what it can measure, says the device", Zh: "超出量程上限"}
	case telemetry.UnderRange:
		return telemetry.Label{En: "below what it can measure, says the device", Zh: "低于量程下限"}
	case telemetry.Invalid:
		return telemetry.Label{En: "no valid value, says the device: sensor broken or not connected", Zh: "设备报告数值无效：传感器断线或故障"}
	case telemetry.Refused:
		return telemetry.Label{En: "the device refuses to give it", Zh: "设备拒绝读取该测点"}
	}
	return telemetry.Label{En: "has no value: " + p.Quality.String(), Zh: "无有效数值：" + p.Quality.String()}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
