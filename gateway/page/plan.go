package page

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"luquan/gateway/alarm"
	"luquan/internal/conffile"
)

// Opener is the configuration of one channel. The assembly, which alone knows
// every channel package, supplies a struct with a key for each kind.
type Opener interface {
	// Open makes the channel called name; dir is the folder of page.yaml, for
	// files it names. It connects to nothing.
	Open(name, dir string) (Channel, error)
}

type fileYAML[C Opener] struct {
	Channels map[string]C        `yaml:"channels"`
	Rotas    map[string]rotaYAML `yaml:"rotas"`
}

// rotaYAML is who is told. notify are the channels told always, whoever is on duty.
type rotaYAML struct {
	Notify []string `yaml:"notify"`
}

// Plan is a page.yaml, checked. It is immutable.
type Plan struct {
	file     string
	channels map[string]Channel
	rotas    map[string][]string // channel names
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// ParseFile reads a page.yaml, called name in errors; C describes the channels
// there are. Everything wrong in it is told at once at file:line:col.
func ParseFile[C Opener](name string, data []byte) (*Plan, error) {
	var f fileYAML[C]
	doc, readErr := conffile.Parse(name, data, &f)
	p := &Plan{file: name, channels: map[string]Channel{}, rotas: map[string][]string{}}
	for _, ch := range slices.Sorted(maps.Keys(f.Channels)) {
		at := conffile.Path{"channels", ch}
		if !nameForm.MatchString(ch) {
			doc.Errorf(at, "channel %q: use lower-case letters, digits and -", ch)
		}
		if readErr != nil {
			continue // what could not be decoded would be called missing
		}
		c, err := f.Channels[ch].Open(ch, filepath.Dir(name))
		if err != nil {
			doc.Fail(at, err)
			continue
		}
		p.channels[ch] = c
	}
	for _, rota := range slices.Sorted(maps.Keys(f.Rotas)) {
		at := conffile.Path{"rotas", rota}
		if !nameForm.MatchString(rota) {
			doc.Errorf(at, "rota %q: use lower-case letters, digits and -", rota)
		}
		notify := f.Rotas[rota].Notify
		if len(notify) == 0 && readErr == nil {
			doc.Errorf(at, "rota %q tells nobody; write notify: and the names of channels", rota)
		}
		for i, ch := range notify {
			if _, ok := f.Channels[ch]; !ok {
				doc.Errorf(at.With("notify", i), "channel %q is not under channels:%s", ch, known(slices.Sorted(maps.Keys(f.Channels))))
			}
			if slices.Contains(notify[:i], ch) {
				doc.Errorf(at.With("notify", i), "channel %q stands in the list already", ch)
			}
		}
		p.rotas[rota] = notify
	}
	if readErr == nil && len(f.Rotas) == 0 {
		doc.Errorf(conffile.Path{"rotas"}, "no rotas here; rules page a rota by its name, write at least one under rotas:")
	}
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

// Rotas returns the names of the plan's rotas, sorted.
func (p *Plan) Rotas() []string { return slices.Sorted(maps.Keys(p.rotas)) }

// Channels returns the plan's channels, sorted by name.
func (p *Plan) Channels() []Channel {
	var out []Channel
	for _, n := range slices.Sorted(maps.Keys(p.channels)) {
		out = append(out, p.channels[n])
	}
	return out
}

// Pages returns what the events have people told: a page for each channel of
// the alarm's rota. link gives the alarm's address in the console and may be
// nil. A rota that is not in the plan is an error, after which the other pages
// are still to be sent.
func (p *Plan) Pages(events []alarm.Event, link func(alarm.Alarm) string) ([]Page, error) {
	var out []Page
	var missing error
	for i := range events {
		ev := &events[i]
		if ev.Tell == "" {
			continue
		}
		notify, ok := p.rotas[ev.Alarm.Page]
		if !ok {
			missing = fmt.Errorf("page alarm %q: %s has no rota %q", ev.Alarm.ID, p.file, ev.Alarm.Page)
			continue
		}
		address := ""
		if link != nil {
			address = link(ev.Alarm)
		}
		m := messageOf(ev, address)
		for _, ch := range notify {
			out = append(out, Page{Rota: ev.Alarm.Page, Channel: ch, Message: m})
		}
	}
	return out, missing
}

func known(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "; there are " + strings.Join(names, ", ")
}
