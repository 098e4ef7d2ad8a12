package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"luquan/gateway/alarm"
	"luquan/gateway/hub/console"
	"luquan/gateway/hub/journal"
	"luquan/gateway/telemetry"
)

// consoleOptions says what the console shows: each function turns what a stage
// knows into the console's words.
func (h *Hub) consoleOptions() console.Options {
	sites := make([]console.Site, len(h.cfg.Overview))
	for i, o := range h.cfg.Overview {
		sites[i] = console.Site{Name: o.Site, Label: o.Label, Key: o.Points}
	}
	return console.Options{
		Feed: h.feed, Sites: sites, Alarms: h.judge, History: h.store, Limits: h.limits,
		Gateways: h.gateways, Ledger: h.account, Import: h.importPayload, Journal: h.journalEntries, Health: h.health, Chain: h.chain.Report,
		Quarantine: kept{h.quarantine, h.consumer},
		Ready:      h.ready, Metrics: h.metrics, Logger: h.log,
	}
}

func (h *Hub) limits(point string) []console.Limit {
	var out []console.Limit
	for _, r := range h.rules.Rules() {
		switch r.Type {
		case alarm.HighHigh, alarm.High, alarm.Low, alarm.LowLow:
			if telemetry.Match(r.Points, point) {
				out = append(out, console.Limit{Kind: string(r.Type), Value: r.Limit, Priority: string(r.Priority)})
			}
		}
	}
	return out
}

func (h *Hub) gateways() []console.Gateway {
	devices := h.judge.devices()
	var out []console.Gateway
	for _, g := range h.consumer.Gateways() {
		c := console.Gateway{
			Name: g.Site + "/" + g.Gateway, Site: g.Site, Gateway: g.Gateway,
			Online: g.State.Online, Since: g.StateAt, Last: g.PayloadAt,
			Version: g.State.Version, Boot: g.State.Boot, Config: g.State.Cfg, Epoch: g.State.Epoch,
			Devices: devices[siteGateway{g.Site, g.Gateway}],
		}
		for _, hold := range g.State.Holds {
			if hold[1] >= hold[0] {
				c.Held += hold[1] - hold[0] + 1
			}
		}
		if g.Header.Sent != 0 {
			c.Late = g.PayloadAt.Sub(time.Unix(0, g.Header.Sent))
		}
		out = append(out, c)
	}
	return out
}

func (h *Hub) journalEntries(ctx context.Context, q console.JournalQuery) ([]console.JournalEntry, error) {
	entries, err := h.journal.Journal(ctx, q.From, q.To, q.Limit)
	if err != nil {
		return nil, err
	}
	var out []console.JournalEntry
	for _, e := range entries {
		c := console.JournalEntry{Time: e.Time, At: e.At, Kind: string(e.Transition), By: e.By}
		if c.Alarm = e.Alarm; e.Alarm != nil {
			c.AlarmID = e.Alarm.ID
		}
		if e.Kind == journal.KindPage && e.Page != nil {
			c.Kind = "page " + string(e.Page.Outcome)
			c.Alarm, c.AlarmID = nil, e.Page.AlarmID
			c.Detail = telemetry.Label{
				Zh: fmt.Sprintf("值班组 %s，经 %s，第 %d 次", e.Page.Rota, e.Page.Channel, e.Page.Attempt),
				En: fmt.Sprintf("%s by %s, attempt %d", e.Page.Rota, e.Page.Channel, e.Page.Attempt),
			}
			if e.Page.Answer != "" {
				c.Detail.Zh += "：" + e.Page.Answer
				c.Detail.En += ": " + e.Page.Answer
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// health tells the state of the hub's own links of the chain, from the plant
// to the store.
func (h *Hub) health() []console.Component {
	up, since, why := h.link.State()
	brokerLink := console.Component{Name: "broker", Label: telemetry.Label{Zh: "消息代理", En: "Broker"}, State: "ok", Since: since}
	if !up {
		brokerLink.State = "fail"
		brokerLink.Detail = telemetry.Label{Zh: "与消息代理的连接已断开：" + why.Error(), En: "no connection to the broker: " + why.Error()}
	}
	st := h.consumer.Stats()
	store := console.Component{Name: "store", Label: telemetry.Label{Zh: "存储", En: "Store"}, State: "ok", Since: h.start}
	if !st.FailingSince.IsZero() {
		store.State, store.Since = "fail", st.FailingSince
		store.Detail = telemetry.Label{Zh: "历史库无法写入：" + st.Why, En: "history cannot be written: " + st.Why}
	}
	book := console.Component{Name: "journal", Label: telemetry.Label{Zh: "日志", En: "Journal"}, State: "ok", Since: h.start}
	if err := h.judge.Failing(); err != nil {
		book.State = "fail"
		book.Detail = telemetry.Label{Zh: "报警日志无法写入：" + err.Error(), En: "the alarm journal cannot be written: " + err.Error()}
	}
	boards := console.Component{Name: "gateways", Label: telemetry.Label{Zh: "网关", En: "Gateways"}, State: "ok", Since: h.start}
	var offline []string
	for _, g := range h.consumer.Gateways() {
		if !g.State.Online {
			offline = append(offline, g.Site+"/"+g.Gateway)
		}
	}
	if len(offline) > 0 {
		boards.State = "warn"
		boards.Detail = telemetry.Label{Zh: fmt.Sprintf("离线：%v", offline), En: fmt.Sprintf("offline: %v", offline)}
	}
	return []console.Component{boards, brokerLink, store, book}
}

// ready tells why the hub cannot do its work.
func (h *Hub) ready() error {
	var errs []error
	if up, _, why := h.link.State(); !up {
		errs = append(errs, fmt.Errorf("no connection to the broker: %w", why))
	}
	if st := h.consumer.Stats(); !st.FailingSince.IsZero() {
		errs = append(errs, fmt.Errorf("history cannot be written since %s: %s", st.FailingSince.Format(time.RFC3339), st.Why))
	}
	if err := h.judge.Failing(); err != nil {
		errs = append(errs, fmt.Errorf("the alarm journal cannot be written: %w", err))
	}
	return errors.Join(errs...)
}

// metrics writes the counters of ingest and live in the Prometheus text format.
func (h *Hub) metrics(w io.Writer) {
	st, fs := h.consumer.Stats(), h.feed.Stats()
	oldest := 0.0
	if !st.OldestWaiting.IsZero() {
		oldest = time.Since(st.OldestWaiting).Seconds()
	}
	for _, m := range []struct {
		name  string
		value any
	}{
		{"luquan_ingest_payloads_total", st.Payloads},
		{"luquan_ingest_bad_payloads_total", st.BadPayloads},
		{"luquan_ingest_records_total", st.Records},
		{"luquan_ingest_bad_lines_total", st.BadLines},
		{"luquan_ingest_duplicates_total", st.Duplicates},
		{"luquan_ingest_dropped_total", st.Dropped},
		{"luquan_ingest_stored_total", st.Stored},
		{"luquan_ingest_quarantined_total", st.Quarantined},
		{"luquan_ingest_store_errors_total", st.StoreErrors},
		{"luquan_ingest_commits_total", st.Commits},
		{"luquan_ingest_commit_failures_total", st.CommitFails},
		{"luquan_ingest_not_ours_total", st.NotOurs},
		{"luquan_ingest_bad_topics_total", st.BadTopics},
		{"luquan_ingest_queue_lines", st.QueueLines},
		{"luquan_ingest_queue_bytes", st.QueueBytes},
		{"luquan_ingest_oldest_waiting_seconds", oldest},
		{"luquan_live_points", fs.Points},
		{"luquan_live_records_total", fs.Applied},
		{"luquan_live_readers", fs.Readers},
	} {
		fmt.Fprintf(w, "%s %v\n", m.name, m.value)
	}
}
