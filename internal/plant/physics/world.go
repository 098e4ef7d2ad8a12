// Package physics is what happens in the simulated sites: weather, water, heat,
// electricity and the machines between them. A site is a model, one file here;
// it moves in steps and puts its quantities, which the devices of package plant
// show. What goes in goes out or is stored: the models keep their balances.
package physics

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Tick is the step of the physics, in seconds. Every elapsed time is cut into
// whole ticks, so that a run depends on its seed and the time it simulates and
// on nothing else.
const Tick = 0.1

// model is the physics of one site. step advances it by dt seconds at the hour
// of the day (0 to 24) and puts every quantity of the site; step with dt 0 only
// puts them. Models keep no value of their own that a quantity holds.
type model interface {
	step(q *quantities, dt, hour float64)
}

// models are the sites we have physics for, by the name in plant.yaml.
func models() map[string]func(seed uint64) model {
	return map[string]func(seed uint64) model{
		"heating-plant":    func(seed uint64) model { return newHeating(seed) },
		"sewage-works":     func(seed uint64) model { return newSewage(seed) },
		"computing-centre": func(seed uint64) model { return newComputing(seed) },
		"substation":       func(seed uint64) model { return newSubstation(seed) },
		"gas-storage":      func(seed uint64) model { return newGasStorage(seed) },
		"cold-chain":       func(seed uint64) model { return newColdChain(seed) },
	}
}

// World is one site's physics. It is not safe for concurrent use.
type World struct {
	model model
	q     *quantities
}

// New returns the world of that model at the hour of the day. The same seed
// gives the same course.
func New(name string, seed uint64, hour float64) (*World, error) {
	all := models()
	begin, known := all[name]
	if !known {
		return nil, fmt.Errorf("there is no model %q; the models are %s", name, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	}
	w := &World{begin(seed), newQuantities()}
	w.Step(0, hour)
	return w, nil
}

// Step advances the world by dt seconds at the hour of the day; dt 0 only lets
// what is held take effect.
func (w *World) Step(dt, hour float64) { w.model.step(w.q, dt, hour) }

// Quantity returns a quantity by its full name, and its canonical unit.
func (w *World) Quantity(name string) (value float64, unit string, ok bool) {
	q, ok := w.q.by[name]
	if !ok {
		return 0, "", false
	}
	return q.value, q.unit, true
}

// Value returns a quantity that is known to exist.
func (w *World) Value(name string) float64 { return w.q.value(name) }

// Names returns the full names of all quantities, sorted.
func (w *World) Names() []string { return w.q.names() }

// Hold keeps a quantity that is known to exist at v, until Free. The model sees
// v too, so that what depends on it follows.
func (w *World) Hold(name string, v float64) { w.q.by[name].held = &v }

// Free lets every quantity go its way again.
func (w *World) Free() {
	for _, q := range w.q.by {
		q.held = nil
	}
}
