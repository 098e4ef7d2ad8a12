package alarm

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"luquan/gateway/telemetry"
)

// State is where an alarm stands after ISA-18.2; docs/alarms.md has the table.
type State string

// The states of an alarm.
const (
	Normal                 State = "normal"
	Suppressed             State = "suppressed" // holds, but is not announced: see Alarm.Reason
	Unacknowledged         State = "unacknowledged"
	Acknowledged           State = "acknowledged"
	ReturnedUnacknowledged State = "returned_unacknowledged"
)

// active reports whether the condition holds in this state.
func (s State) active() bool {
	return s == Suppressed || s == Unacknowledged || s == Acknowledged
}

// announced reports whether people were shown the alarm and it still holds.
func (s State) announced() bool { return s == Unacknowledged || s == Acknowledged }

// Why an alarm is Suppressed: the values of Alarm.Reason.
const (
	ReasonLate  = "late"  // known from late readings only
	ReasonOuter = "outer" // a high_high (low_low) of the same point stands
)

// Alarm is one alarm of one rule at one point, as it stands. It is a copy;
// its holder may keep it.
type Alarm struct {
	ID       string // rule|point|start in ns UTC as first known, unique for ever
	Rule     string
	Type     Type
	Point    string // site/device/point
	Priority Priority
	State    State
	Reason   string // why Suppressed, else ""
	Late     bool   // the raise was told later than max_late allows
	// Start is when the condition began, Cleared when it ended (zero while it
	// holds): true times, by the board's stamps; for stale and absent by the hub's clock.
	Start, Cleared time.Time
	// Value is the last value the point had and ValueAt its stamp; Quality is
	// that of the last reading. With a bad one Value is what was known before.
	Value   telemetry.Value
	ValueAt time.Time
	Quality telemetry.Quality
	Limit   *float64 // nil for types without one
	Unit    string
	AckedBy string
	AckedAt time.Time
	Message telemetry.Label
	Help    telemetry.Label
	Page    string // the rota, "" for none
}

// alarmJSON is an Alarm in the API and the journal.
type alarmJSON struct {
	ID       string           `json:"id"`
	Rule     string           `json:"rule"`
	Type     Type             `json:"type"`
	Point    string           `json:"point"`
	Priority Priority         `json:"priority"`
	State    State            `json:"state"`
	Reason   string           `json:"reason,omitempty"`
	Late     bool             `json:"late,omitempty"`
	Start    time.Time        `json:"start"`
	Cleared  time.Time        `json:"cleared,omitzero"`
	Value    any              `json:"value,omitempty"`
	ValueAt  time.Time        `json:"value_at,omitzero"`
	Class    string           `json:"class,omitempty"`
	Quality  int              `json:"quality"`
	QualText string           `json:"quality_text"`
	Limit    *float64         `json:"limit,omitempty"`
	Unit     string           `json:"unit,omitempty"`
	AckedBy  string           `json:"acked_by,omitempty"`
	AckedAt  time.Time        `json:"acked_at,omitzero"`
	Message  telemetry.Label  `json:"message"`
	Help     *telemetry.Label `json:"help,omitempty"`
	Page     string           `json:"page,omitempty"`
}

// MarshalJSON writes the alarm as the API shows it: snake_case keys, times in
// RFC 3339, the value as a number or text with its class beside it.
func (a Alarm) MarshalJSON() ([]byte, error) {
	j := alarmJSON{
		ID: a.ID, Rule: a.Rule, Type: a.Type, Point: a.Point, Priority: a.Priority, State: a.State,
		Reason: a.Reason, Late: a.Late, Start: a.Start, Cleared: a.Cleared, ValueAt: a.ValueAt,
		Quality: int(a.Quality), QualText: a.Quality.String(), Limit: a.Limit, Unit: a.Unit,
		AckedBy: a.AckedBy, AckedAt: a.AckedAt, Message: a.Message, Page: a.Page,
	}
	if a.Help != (telemetry.Label{}) {
		j.Help = &a.Help
	}
	switch a.Value.Class() {
	case telemetry.Float:
		j.Value, j.Class = a.Value.Float(), a.Value.Class().String()
	case telemetry.Int:
		j.Value, j.Class = a.Value.Int(), a.Value.Class().String()
	case telemetry.String:
		j.Value, j.Class = a.Value.Str(), a.Value.Class().String()
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (a *Alarm) UnmarshalJSON(b []byte) error {
	var raw json.RawMessage
	j := alarmJSON{Value: &raw}
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*a = Alarm{
		ID: j.ID, Rule: j.Rule, Type: j.Type, Point: j.Point, Priority: j.Priority, State: j.State,
		Reason: j.Reason, Late: j.Late, Start: j.Start, Cleared: j.Cleared, ValueAt: j.ValueAt,
		Quality: telemetry.Quality(j.Quality), Limit: j.Limit, Unit: j.Unit,
		AckedBy: j.AckedBy, AckedAt: j.AckedAt, Message: j.Message, Page: j.Page,
	}
	if j.Help != nil {
		a.Help = *j.Help
	}
	switch j.Class {
	case "float":
		f, err := strconv.ParseFloat(string(raw), 64)
		if err != nil {
			return err
		}
		a.Value = telemetry.FloatValue(f)
	case "int":
		i, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return err
		}
		a.Value = telemetry.IntValue(i)
	case "string":
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		a.Value = telemetry.StringValue(s)
	}
	return nil
}

// Parts returns the three parts of the point's full name.
func (a *Alarm) Parts() (site, device, point string) {
	site, rest, _ := strings.Cut(a.Point, "/")
	device, point, _ = strings.Cut(rest, "/")
	return site, device, point
}

// Transition is what happened to an alarm. Each happens at most once for one
// alarm, so (alarm id, transition) is the key of an event.
type Transition string

// The transitions.
const (
	Raised     Transition = "raised"       // the condition began
	Announced  Transition = "announced"    // a suppressed alarm was shown to people
	AckedEvent Transition = "acknowledged" // a person acknowledged it
	Cleared    Transition = "cleared"      // the condition ended
	Superseded Transition = "superseded"   // a new alarm took the place of a returned, unacknowledged one
	Removed    Transition = "removed"      // the rule or point is no more
	Backdated  Transition = "backdated"    // what arrived later shows that it began earlier: Start moved, the ID stays
)

// Event is one transition of one alarm.
type Event struct {
	Transition Transition
	// Time is when it truly happened: for Raised the alarm's Start, for Cleared
	// its Cleared; At is when the engine found out, by the hub's clock.
	Time, At time.Time
	Alarm    Alarm // as it stands after the transition
	// Tell is what people are to be told by the alarm's rota: Raised, Cleared
	// or AckedEvent, "" for nothing. It is set only where Alarm.Page is. An
	// alarm that began and ended before the hub heard of it may be told as
	// Raised with its Cleared set (late: page). Each is told once for one alarm.
	Tell Transition
	By   string // who acknowledged
	// Memory is what the engine must be given back after a restart.
	Memory Memory
}

// Key returns the event's identity, alarm id and transition.
func (e *Event) Key() string { return e.Alarm.ID + "|" + string(e.Transition) }

// Memory is what one rule at one point must remember over a restart. It is
// meant to be stored as JSON and given to Engine.Restore.
type Memory struct {
	Rule  string `json:"rule"`
	Point string `json:"point"`
	Type  Type   `json:"type"`
	// Watermark is the latest stamp judged.
	Watermark time.Time `json:"watermark,omitzero"`
	// Holding is the first reading of a run that may become an alarm, Returning
	// the first of a run that may end one; zero for none.
	Holding   time.Time `json:"holding,omitzero"`
	Returning time.Time `json:"returning,omitzero"`
	Alarm     *Alarm    `json:"alarm,omitempty"` // nil when Normal
}

// What Ack may say.
var (
	// ErrUnknown: no alarm with this id is on the list.
	ErrUnknown = errors.New("no such alarm on the list; it may have been acknowledged and have returned")
	// ErrSuppressed: the alarm is not announced, so there is nothing to acknowledge.
	ErrSuppressed = errors.New("the alarm is suppressed and not announced yet")
)
