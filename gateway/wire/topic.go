package wire

import (
	"fmt"
	"strings"

	"luquan/gateway/telemetry"
)

// prefix of every topic of version 1 of the contract.
const prefix = "luquan/v1/"

// What says which of the contract's topics a Topic is.
type What string

// The topics of docs/contract.md.
const (
	Live       What = "live"       // gateway: readings as they come
	Backfill   What = "backfill"   // gateway: what the live lane skipped
	StateDoc   What = "state"      // gateway, retained, also its will: State
	MetaDoc    What = "meta"       // gateway, retained, Arg is the cfg: Meta
	CommitDoc  What = "committed"  // hub, retained: Committed
	Evidence   What = "evidence"   // gateway, QoS 0
	Suppressed What = "suppressed" // hub, retained
	TimeBeat   What = "time"       // hub, Arg is the hub's name: HubTime
)

// Topic is one topic of the contract, or a subscription filter where a part is "+".
type Topic struct {
	Site, Gateway string // both empty for TimeBeat
	What          What
	Arg           string // cfg of MetaDoc, hub's name of TimeBeat; else ""
	Zstd          bool   // Live and Backfill only: the payload is one zstd frame
}

// String returns the topic as MQTT carries it.
func (t Topic) String() string {
	switch {
	case t.What == TimeBeat:
		return prefix + "hub/" + t.Arg + "/" + string(t.What)
	case t.Arg != "":
		return prefix + t.Site + "/" + t.Gateway + "/" + string(t.What) + "/" + t.Arg
	case t.Zstd:
		return prefix + t.Site + "/" + t.Gateway + "/" + string(t.What) + ".zst"
	}
	return prefix + t.Site + "/" + t.Gateway + "/" + string(t.What)
}

// ParseTopic is the inverse of Topic.String for topics without wildcards. An
// error means that the topic is none of the contract's.
func ParseTopic(s string) (Topic, error) {
	rest, ok := strings.CutPrefix(s, prefix)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) < 3 || len(parts) > 4 {
		return Topic{}, fmt.Errorf("topic %q: not of the form %s<site>/<gateway>/<what>", s, prefix)
	}
	if parts[0] == "hub" {
		if len(parts) != 3 || parts[2] != string(TimeBeat) || !telemetry.ValidName(parts[1]) {
			return Topic{}, fmt.Errorf("topic %q: not of the form %shub/<name>/time", s, prefix)
		}
		return Topic{What: TimeBeat, Arg: parts[1]}, nil
	}
	t := Topic{Site: parts[0], Gateway: parts[1]}
	if !telemetry.ValidName(t.Site) || !telemetry.ValidName(t.Gateway) {
		return Topic{}, fmt.Errorf("topic %q: site and gateway must be of [a-z0-9-]", s)
	}
	name, zst := strings.CutSuffix(parts[2], ".zst")
	t.What, t.Zstd = What(name), zst
	if len(parts) == 4 {
		t.Arg = parts[3]
	}
	switch t.What {
	case Live, Backfill:
		ok = t.Arg == ""
	case StateDoc, CommitDoc, Evidence, Suppressed:
		ok = t.Arg == "" && !zst && len(parts) == 3
	case MetaDoc:
		ok = !zst && validCfg(t.Arg)
	default:
		ok = false
	}
	if !ok || (len(parts) == 4) != (t.What == MetaDoc) {
		return Topic{}, fmt.Errorf("topic %q: no such topic in version 1", s)
	}
	return t, nil
}

// validCfg reports whether s is a cfg: eight lower-case hex digits.
func validCfg(s string) bool { return len(s) == 8 && strings.Trim(s, "0123456789abcdef") == "" }
