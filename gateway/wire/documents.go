package wire

import (
	"encoding/json"
	"fmt"
	"math"
)

// State is what a gateway says of itself, retained on StateDoc and, with
// Online false, its last will. The hub ignores an offline whose Session is not
// the last announced.
type State struct {
	V       int    `json:"v"` // 1
	Online  bool   `json:"online"`
	Session string `json:"session"` // random, of this connection
	Since   int64  `json:"since"`   // ns, when the connection was made
	Version string `json:"version,omitempty"`
	Boot    string `json:"boot"`
	Epoch   uint64 `json:"epoch"` // the current one
	Cfg     string `json:"cfg"`   // the current one
	// Holds has first and last seq of every epoch the board still holds; all
	// before first is settled. Nothing held is last = first-1.
	Holds map[uint64][2]uint64 `json:"holds"`
	// Paged is what the board's own pager has paged.
	Paged []Paged `json:"paged,omitempty"`
}

// Paged is an alarm the board has paged by itself.
type Paged struct {
	Rule  string `json:"rule"`
	Point string `json:"point"`
	Start int64  `json:"start"` // ns, when the alarm began
	At    int64  `json:"at"`    // ns, when it was paged
	To    string `json:"to"`
	Acked bool   `json:"acked"`
}

// Committed is what a hub has stored of a gateway, retained on CommitDoc.
type Committed struct {
	V      int                    `json:"v"`   // 1
	Hub    string                 `json:"hub"` // name/boot id; another one means: send again
	Time   int64                  `json:"time"`
	Epochs map[uint64]CommitEpoch `json:"epochs"`
}

// CommitEpoch says which seqs of one epoch are settled: all to Upto, and the
// ranges of Also, which are sorted, apart and above Upto.
type CommitEpoch struct {
	Upto uint64      `json:"upto"`
	Also [][2]uint64 `json:"also,omitempty"`
}

// HubTime is the hub's clock, on TimeBeat.
type HubTime struct {
	V    int    `json:"v"`   // 1
	Hub  string `json:"hub"` // name/boot id
	Time int64  `json:"time"`
}

// maxAlso bounds the ranges of one epoch that are taken from outside.
const maxAlso = 4096

// Marshal returns the JSON of s, or why it breaks the contract.
func (s State) Marshal() ([]byte, error) {
	s.V = 1
	if s.Holds == nil {
		s.Holds = map[uint64][2]uint64{}
	}
	return marshal("state", s, s.check())
}

// ParseState reads a State and checks it.
func ParseState(doc []byte) (State, error) {
	var s State
	err := parse("state", doc, &s, func() error { return version(s.V, s.check()) })
	return s, err
}

func (s State) check() error {
	switch {
	case !validToken(s.Session):
		return fmt.Errorf("session %q is not 1 to 64 of [A-Za-z0-9-]", short(s.Session))
	case !validToken(s.Boot):
		return fmt.Errorf("boot %q is not 1 to 64 of [A-Za-z0-9-]", short(s.Boot))
	case s.Epoch == 0 || s.Epoch > MaxEpoch:
		return fmt.Errorf("epoch %d is not 1 to 2^53-1", s.Epoch)
	case !validCfg(s.Cfg):
		return fmt.Errorf("cfg %q is not eight hex digits", short(s.Cfg))
	}
	for e, r := range s.Holds {
		if e == 0 || e > MaxEpoch || r[0] == 0 || r[1] > math.MaxInt64-1 || r[0] > r[1]+1 {
			return fmt.Errorf("holds of epoch %d: %d to %d is no range", e, r[0], r[1])
		}
	}
	return nil
}

// Marshal returns the JSON of c, or why it breaks the contract.
func (c Committed) Marshal() ([]byte, error) {
	c.V = 1
	if c.Epochs == nil {
		c.Epochs = map[uint64]CommitEpoch{}
	}
	return marshal("committed", c, c.check())
}

// ParseCommitted reads a Committed and checks it.
func ParseCommitted(doc []byte) (Committed, error) {
	var c Committed
	err := parse("committed", doc, &c, func() error { return version(c.V, c.check()) })
	return c, err
}

func (c Committed) check() error {
	if c.Hub == "" || len(c.Hub) > 256 {
		return fmt.Errorf("hub is missing or over 256 bytes")
	}
	for e, x := range c.Epochs {
		if e == 0 || e > MaxEpoch || x.Upto > math.MaxInt64 || len(x.Also) > maxAlso {
			return fmt.Errorf("epoch %d, upto %d or its %d ranges are out of range", e, x.Upto, len(x.Also))
		}
		after := x.Upto
		for _, r := range x.Also {
			if r[0] <= after || r[1] < r[0] || r[1] > math.MaxInt64 {
				return fmt.Errorf("epoch %d: range %d to %d is empty or not above %d", e, r[0], r[1], after)
			}
			after = r[1]
		}
	}
	return nil
}

// Marshal returns the JSON of t, or why it breaks the contract.
func (t HubTime) Marshal() ([]byte, error) {
	t.V = 1
	return marshal("hub time", t, t.check())
}

// ParseHubTime reads a HubTime and checks it.
func ParseHubTime(doc []byte) (HubTime, error) {
	var t HubTime
	err := parse("hub time", doc, &t, func() error { return version(t.V, t.check()) })
	return t, err
}

func (t HubTime) check() error {
	if t.Hub == "" || len(t.Hub) > 256 || t.Time <= 0 {
		return fmt.Errorf("hub or time is missing")
	}
	return nil
}

func marshal(what string, v any, err error) ([]byte, error) {
	if err != nil {
		return nil, fmt.Errorf("wire: %s: %w", what, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("wire: %s: %w", what, err)
	}
	return b, nil
}

func parse(what string, doc []byte, v any, check func() error) error {
	if len(doc) > MaxPayload {
		return fmt.Errorf("wire: %s of %d bytes is over %d", what, len(doc), MaxPayload)
	}
	if err := json.Unmarshal(doc, v); err != nil {
		return fmt.Errorf("wire: %s: %w", what, err)
	}
	if err := check(); err != nil {
		return fmt.Errorf("wire: %s: %w", what, err)
	}
	return nil
}

func version(v int, err error) error {
	if v != 1 {
		return fmt.Errorf("version %d is not 1", v)
	}
	return err
}
