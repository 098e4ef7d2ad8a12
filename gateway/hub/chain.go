package hub

import (
	"sync"
	"time"

	"luquan/gateway/hub/health"
	"luquan/gateway/telemetry"
)

// chainAge is how long a report of the chain is handed out again: many
// consoles ask, and it walks through every point.
const chainAge = time.Second

// chain brings what the hub's stages know to the health of the chain.
type chain struct {
	h *Hub

	mu    sync.Mutex // guards what follows
	watch *health.Watch
	last  *health.Report
}

// Report tells which link of the chain is broken, as of the last second.
func (c *chain) Report() *health.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); c.last == nil || now.Sub(c.last.At) >= chainAge {
		c.last = c.watch.Judge(now, c.h.world(now))
	}
	return c.last
}

// world is what the hub knows at now.
func (h *Hub) world(now time.Time) health.World {
	w := health.World{Start: h.start}
	if up, since, why := h.link.State(); !up {
		w.Broker = health.Part{Down: true, Since: since, Why: telemetry.Label{
			En: "the hub has no connection to the broker: " + why.Error(), Zh: "中心与消息代理的连接中断：" + why.Error()}}
	}
	if st := h.consumer.Stats(); !st.FailingSince.IsZero() {
		w.Store = health.Part{Down: true, Since: st.FailingSince, Why: telemetry.Label{
			En: "history cannot be written, boards keep it: " + st.Why, Zh: "历史库无法写入，数据由网关保存：" + st.Why}}
	}
	for _, g := range h.consumer.Gateways() {
		w.Boards = append(w.Boards, health.Board{
			Site: g.Site, Name: g.Gateway, Heard: !g.StateAt.IsZero(), Online: g.State.Online, StateAt: g.StateAt,
			PayloadAt: g.PayloadAt, RefusedAt: g.RefusedAt, Refused: g.Refused,
		})
	}
	entries, _ := h.feed.Snapshot("")
	w.Points = make([]health.Point, len(entries))
	for i := range entries {
		e := &entries[i]
		good := e.LastTime
		if e.Clock == telemetry.ClockUnsure && !good.IsZero() {
			good = e.Received
		}
		w.Points[i] = health.Point{
			Site: e.Site, Gateway: e.Gateway, Bus: e.Bus, Device: e.Device, Point: e.Point, Name: e.Name,
			DeviceLabel: e.DeviceLabel, Label: e.Label, Period: e.Period, Status: e.Status, Quality: e.Quality,
			Polled: !e.Time.IsZero(), Stale: e.Stale(now), Good: good,
		}
	}
	return w
}
