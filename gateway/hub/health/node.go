package health

import (
	"fmt"
	"time"

	"luquan/gateway/telemetry"
)

// Level is a link of the chain. The greater one stands above the smaller.
type Level uint8

// The levels, from the plant to the store.
const (
	Sensor Level = iota + 1
	Device
	Bus
	Gateway // the board: its program, its power
	Link    // between the board and the broker
	Broker
	Ingest
	Store
)

var levelNames = [...]string{Sensor: "sensor", Device: "device", Bus: "bus", Gateway: "board", Link: "link", Broker: "broker", Ingest: "ingest", Store: "store"}

// String returns the word of docs/contract.md.
func (l Level) String() string {
	if l == 0 || int(l) >= len(levelNames) {
		return fmt.Sprintf("level %d", uint8(l))
	}
	return levelNames[l]
}

// MarshalText writes the level as its word.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// State is what is known of a node.
type State string

// The states.
const (
	OK      State = "ok"
	Broken  State = "broken"
	Unknown State = "unknown" // it is out of sight, behind a broken node, or has not had the time to speak
)

// ID names a node. The fields above the node's level are empty where they do
// not apply: the broker has none, a board has Site and Gateway.
type ID struct {
	Level   Level  `json:"level"`
	Site    string `json:"site,omitempty"`
	Gateway string `json:"gateway,omitempty"`
	Bus     string `json:"bus,omitempty"`
	Device  string `json:"device,omitempty"`
	Point   string `json:"point,omitempty"` // within the device
}

// Node is one link of the chain as it stands.
type Node struct {
	ID
	State State           `json:"state"`
	Label telemetry.Label `json:"label,omitzero"` // of a device or point, as announced
	Since time.Time       `json:"since,omitzero"` // of the present state
	Why   telemetry.Label `json:"why,omitzero"`   // of being broken or unknown
	// Silent counts the points without a value whose cause this node is.
	Silent int `json:"silent,omitempty"`
}

// Report is what a Watch found. It is immutable.
type Report struct {
	At     time.Time
	Silent int // points without a value
	// Waiting counts those of them that have no cause: what they hang on has
	// only just begun to speak.
	Waiting int

	world *World
	nodes map[ID]*Node   // but sensors that are OK
	place map[string]int // of each point in the world, by full name
	list  []*Node        // the broken ones, the gravest first
}

// SilentOf returns Silent and Waiting of one site.
func (r *Report) SilentOf(site string) (silent, waiting int) {
	for i := range r.world.Points {
		p := &r.world.Points[i]
		if p.Site != site || !p.silent() {
			continue
		}
		silent++
		if r.cause(p.id()) == nil {
			waiting++
		}
	}
	return silent, waiting
}

// Causes returns the broken nodes that are not behind another: the highest
// first, and among one level that which silences most.
func (r *Report) Causes() []Node {
	out := make([]Node, len(r.list))
	for i, n := range r.list {
		out[i] = *n
	}
	return out
}

// Chain returns the eight links of a point by its full name, the sensor first;
// ok is false when nobody announced it.
func (r *Report) Chain(point string) (chain []Node, ok bool) {
	i, ok := r.place[point]
	if !ok {
		return nil, false
	}
	p := &r.world.Points[i]
	for _, up := range above(p.id()) {
		if n := r.nodes[up]; n != nil {
			chain = append(chain, *n)
		} else {
			chain = append(chain, Node{ID: up, State: OK, Label: p.Label})
		}
	}
	return chain, true
}

// Cause returns the reason why a point has no value: the highest broken node
// of its chain that silences the screen. ok is false when nothing is broken.
func (r *Report) Cause(point string) (Node, bool) {
	i, known := r.place[point]
	if !known {
		return Node{}, false
	}
	n := r.cause(r.world.Points[i].id())
	if n == nil {
		return Node{}, false
	}
	return *n, true
}

// cause returns the highest broken node that silences a sensor.
func (r *Report) cause(sensor ID) (found *Node) {
	for _, up := range above(sensor) {
		// Live values do not pass the store.
		if n := r.nodes[up]; n != nil && n.State == Broken && up.Level != Store {
			found = n
		}
	}
	return found
}

// above returns the IDs of a sensor's chain, the sensor first.
func above(s ID) [8]ID {
	return [8]ID{
		s,
		{Level: Device, Site: s.Site, Gateway: s.Gateway, Bus: s.Bus, Device: s.Device},
		{Level: Bus, Site: s.Site, Gateway: s.Gateway, Bus: s.Bus},
		{Level: Gateway, Site: s.Site, Gateway: s.Gateway},
		{Level: Link, Site: s.Site, Gateway: s.Gateway},
		{Level: Broker},
		{Level: Ingest, Site: s.Site, Gateway: s.Gateway},
		{Level: Store},
	}
}
