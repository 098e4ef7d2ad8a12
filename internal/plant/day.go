package plant

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Incident is one thing that goes wrong on a site's day: a line of day.yaml.
type Incident struct {
	At     Clock           // when it begins
	For    time.Duration   // until it is mended
	Label  telemetry.Label // what happens, for people
	Raises []string        // ids of the site's rules that must tell it
	Faults []Fault         // At after the incident's beginning, For to its end when 0
}

// Clock is a time of the day, since midnight; written "06:40".
type Clock time.Duration

// UnmarshalScalar reads hours and minutes.
func (c *Clock) UnmarshalScalar(text string) error {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return fmt.Errorf(`%q is no time of the day; write hours and minutes, for example "06:40"`, text)
	}
	*c = Clock(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute)
	return nil
}

// String returns it as it is written.
func (c Clock) String() string {
	return fmt.Sprintf("%02d:%02d", int(time.Duration(c).Hours()), int(time.Duration(c).Minutes())%60)
}

// MarshalText is String, for JSON.
func (c Clock) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// ParseDay reads a day: {incidents: [{at, for, label, raises, faults}]}. What
// the faults name is checked when the day is given to Load.
func ParseDay(file string, data []byte) ([]Incident, error) {
	var day struct{ Incidents []Incident }
	doc, _ := conffile.Parse(file, data, &day)
	for i, inc := range day.Incidents {
		at := conffile.Path{"incidents", i}
		if !doc.Has(at.With("at")) {
			doc.Errorf(at, `at is missing; say when it happens, for example at: "06:40"`)
		}
		if inc.For <= 0 || inc.For > 12*time.Hour {
			doc.Errorf(at.With("for"), "for is %v; say how long it lasts, up to 12h", inc.For)
		}
		if inc.Label.En == "" || inc.Label.Zh == "" {
			doc.Errorf(at.With("label"), "label needs en and zh: what happens")
		}
		if len(inc.Faults) == 0 {
			doc.Errorf(at.With("faults"), "faults is missing; say what goes wrong, as in faults.yaml")
		}
		for k, f := range inc.Faults {
			fat := at.With("faults", k)
			if !slices.Contains(deeds, f.Do) {
				doc.Errorf(fat.With("do"), "do is %q; it is one of %s", f.Do, strings.Join(deeds, ", "))
			}
			if f.At < 0 || f.At+f.For > inc.For || f.At >= inc.For && inc.For > 0 {
				doc.Errorf(fat, "the fault does not lie within its incident of %v: at counts from the incident's beginning", inc.For)
			}
		}
	}
	return day.Incidents, doc.Err()
}

// LoadDay reads the day.yaml of a site's folder.
func LoadDay(fsys fs.FS, siteDir string) ([]Incident, error) {
	file := path.Join(siteDir, "day.yaml")
	data, err := fs.ReadFile(fsys, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the site %s has no day.yaml: nothing happens on its day", path.Base(siteDir))
	}
	if err != nil {
		return nil, fmt.Errorf("read the site's day: %w", err)
	}
	return ParseDay(file, data)
}

// day puts the incidents on the clock: each comes once in the 24 hours from
// now, which is the plant's clock. p.mu is not held.
func (p *Plant) day(now time.Time) {
	p.mu.Lock()
	clock := time.Duration(p.clock * float64(time.Second))
	p.mu.Unlock()
	wall := func(d time.Duration) time.Duration { return time.Duration(float64(d) / p.speed) }
	for i := range p.incidents {
		inc := &p.incidents[i]
		wait := (time.Duration(inc.At) - clock) % (24 * time.Hour)
		if wait < 0 {
			wait += 24 * time.Hour
		}
		for k, f := range inc.Faults {
			if f.For == 0 {
				f.For = inc.For - f.At
			}
			f.At, f.For = wall(wait+f.At), wall(f.For)
			r := p.schedule(f, now)
			if k == 0 {
				p.mu.Lock()
				r.incident = inc
				p.mu.Unlock()
			}
		}
	}
}
