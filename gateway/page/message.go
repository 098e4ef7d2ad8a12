package page

import (
	"context"
	"encoding/json"
	"time"

	"luquan/gateway/alarm"
	"luquan/gateway/telemetry"
)

// Message is what people are told of one alarm. Its JSON is the body of the
// webhook and what the outbox stores; keys are only ever added.
type Message struct {
	ID         string           `json:"id"`         // the alarm's id
	Transition alarm.Transition `json:"transition"` // raised, cleared or acknowledged
	Rule       string           `json:"rule"`
	Type       alarm.Type       `json:"type"`
	Site       string           `json:"site"`
	Device     string           `json:"device"`
	Point      string           `json:"point"` // the last part of the full name
	// Value is the point's last value, a JSON number or text; absent when there
	// is none. ValueAt is its stamp, Quality the text for the last reading.
	Value   json.RawMessage `json:"value,omitempty"`
	ValueAt time.Time       `json:"value_at,omitzero"`
	Quality string          `json:"quality"`
	Unit    string          `json:"unit,omitempty"`
	Limit   *float64        `json:"limit,omitempty"`
	Prio    alarm.Priority  `json:"priority"`
	Message telemetry.Label `json:"message"`
	Help    telemetry.Label `json:"help,omitzero"`
	Start   time.Time       `json:"start"`            // when the condition truly began
	Cleared time.Time       `json:"cleared,omitzero"` // when it truly ended; may be set on raised: it came and went unseen
	At      time.Time       `json:"at"`               // when the hub found out
	Late    bool            `json:"late,omitempty"`   // it began before the hub could hear of it
	By      string          `json:"by,omitempty"`     // who acknowledged
	Link    string          `json:"link,omitempty"`   // the alarm in the console
	// MayRepeat says that an earlier attempt was cut off before its answer was
	// written down: the receiver may have this message already.
	MayRepeat bool `json:"may_repeat,omitempty"`
}

// Key identifies what the message tells, whatever the channel and however
// often it is sent: alarm id and transition. Receivers drop repeats by it.
func (m *Message) Key() string { return m.ID + "|" + string(m.Transition) }

// Channel carries messages to people. Notify may be called by one goroutine at
// a time.
type Channel interface {
	// Name is the channel's name in page.yaml.
	Name() string
	// Notify sends m once and returns nil when the other side has accepted it.
	// On an error, retry says whether trying again may help. The error names
	// no secret: it goes to the journal.
	Notify(ctx context.Context, m Message) (retry bool, err error)
}

// Page is one message for one channel: an entry of the outbox.
type Page struct {
	Rota    string
	Channel string
	Message Message
}

// Key identifies the page: no alarm's transition goes to a channel twice.
func (p *Page) Key() string { return p.Message.Key() + "|" + p.Channel }

// Outcome is what became of one attempt.
type Outcome string

// The outcomes of an attempt.
const (
	Sending   Outcome = "sending"   // begun; stands alone when the process was killed before the answer
	Delivered Outcome = "delivered" // the channel accepted it
	Failed    Outcome = "failed"    // will be tried again at Next
	Refused   Outcome = "refused"   // will not be tried again
)

// Attempt is one step of sending a page, for the outbox to write down.
type Attempt struct {
	Key     string // the page's
	At      time.Time
	Outcome Outcome
	Answer  string    // what went wrong, "" for nothing
	Next    time.Time // of Failed
}

// Entry is a page that is still to be delivered.
type Entry struct {
	Page
	Created  time.Time
	Attempts int       // begun so far
	Next     time.Time // not before; zero at once
	Begun    bool      // an attempt was begun and its answer never written down
}

// Outbox keeps pages until they are delivered; hub/journal has it on disk. It
// is used by several goroutines.
type Outbox interface {
	// Pending returns the channel's pages not delivered and not refused, the
	// oldest first; those of all channels when channel is "".
	Pending(ctx context.Context, channel string) ([]Entry, error)
	// Mark writes an attempt down, durably before it returns.
	Mark(ctx context.Context, a Attempt) error
}

func messageOf(ev *alarm.Event, link string) Message {
	a := &ev.Alarm
	site, device, point := a.Parts()
	m := Message{
		ID: a.ID, Transition: ev.Tell, Rule: a.Rule, Type: a.Type, Site: site, Device: device, Point: point,
		ValueAt: a.ValueAt, Quality: a.Quality.String(), Unit: a.Unit, Limit: a.Limit, Prio: a.Priority,
		Message: a.Message, Help: a.Help, Start: a.Start, Cleared: a.Cleared, At: ev.At, Late: a.Late,
		By: ev.By, Link: link,
	}
	var v any
	switch a.Value.Class() {
	case telemetry.Float:
		v = a.Value.Float()
	case telemetry.Int:
		v = a.Value.Int()
	case telemetry.String:
		v = a.Value.Str()
	default:
		return m
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: a value that is no JSON: " + err.Error())
	}
	m.Value = b
	return m
}
