package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Library is a set of profiles that agree with each other: one kind and point
// has one class and one unit in all of them. It is immutable, and so are the
// profiles that it gives out; it may be used from any goroutine.
type Library struct {
	models map[string]*rawProfile
	names  []string
	pairs  pairs

	mu       sync.Mutex // guards resolved and known
	resolved []resolved
	known    map[string][]quantity // by profile; made by quantities
}

// resolved is a profile as it was asked for and as it was given.
type resolved struct {
	ref     Ref
	profile *Profile
}

// pairs says what a (kind, point) pair is and which profile said so first.
type pairs map[[2]string]pair

type pair struct {
	class telemetry.Class
	unit  string
	by    string
}

// Load reads every .yaml file of a folder. All mistakes in all files are in
// the error, each at file:line:col (conffile.Errors); the library then holds
// the sound ones.
func Load(fsys fs.FS, dir string) (*Library, error) {
	files, err := fs.Glob(fsys, path.Join(dir, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("list the profiles in %s: %w", dir, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there are no profiles in %s: it holds no .yaml file", dir)
	}
	lib := &Library{models: map[string]*rawProfile{}, pairs: pairs{}}
	var errs []error
	for _, file := range files {
		data, err := fs.ReadFile(fsys, file)
		if err != nil {
			errs = append(errs, &conffile.Error{File: file, Msg: err.Error()})
			continue
		}
		doc, raw, _ := lib.parse(file, data)
		if err := doc.Err(); err != nil {
			errs = append(errs, err)
			continue
		}
		lib.models[raw.ID] = raw
		lib.names = append(lib.names, raw.ID)
	}
	slices.Sort(lib.names)
	return lib, conffile.Join(errs...)
}

// Parse checks one profile and returns it with its parameters at their
// defaults (a parameter without one at the first of its values). file is its
// name in errors.
func Parse(file string, data []byte) (*Profile, error) {
	lib := &Library{pairs: pairs{}}
	doc, _, p := lib.parse(file, data)
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

// Names returns the ids of all profiles, sorted.
func (l *Library) Names() []string { return slices.Clone(l.names) }

// Param is what a profile leaves to the settings of the device on site.
type Param struct {
	Name    string
	OneOf   []string
	Default string // "": it must be given
	Label   telemetry.Label
	Note    string
}

// Params returns the parameters of the profile of that id, sorted by name;
// none when there is no such profile.
func (l *Library) Params(id string) []Param {
	raw, ok := l.models[id]
	if !ok {
		return nil
	}
	var out []Param
	for _, name := range slices.Sorted(maps.Keys(raw.Params)) {
		p := raw.Params[name]
		out = append(out, Param{name, slices.Clone(p.OneOf), string(p.Default), p.Label, p.Note})
	}
	return out
}

// Forms returns the profile of that id with its parameters at their defaults
// (one without at its first value), then with each other value of each of
// them, then as each further point needs that is there with several others
// only; none when there is no such profile. A point that is there with some
// parameters only is in some of them.
func (l *Library) Forms(id string) []*Profile {
	raw, ok := l.models[id]
	if !ok {
		return nil
	}
	return allForms(raw)
}

// Lookup returns the profile of that id with the parameters given, others at
// their defaults.
func (l *Library) Lookup(id string, params map[string]string) (*Profile, error) {
	doc, _ := conffile.Parse("profile "+id, nil, &struct{}{})
	p := Ref{Base: id, Params: params}.Resolve(l, doc, nil)
	if err := doc.Err(); err != nil {
		var list conffile.Errors
		if errors.As(err, &list) {
			return nil, errors.New(list[0].Msg)
		}
		return nil, err
	}
	return p, nil
}

// parse reads one file and checks it with every value of every parameter. The
// profile it returns is that of the first choice of parameters.
func (l *Library) parse(file string, data []byte) (*conffile.Doc, *rawProfile, *Profile) {
	raw := &rawProfile{}
	doc, err := conffile.Parse(file, data, raw)
	if err != nil {
		return doc, nil, nil // half a file would give errors that are none
	}
	if want := strings.TrimSuffix(path.Base(file), ".yaml"); raw.ID != want {
		doc.Errorf(conffile.Path{"id"}, "id is %q and the file is named %s; both are the model's name, for example id: %s", raw.ID, path.Base(file), want)
	}
	if !telemetry.ValidName(raw.ID) {
		doc.Errorf(conffile.Path{"id"}, "id %q is not allowed: use a-z, 0-9 and -", raw.ID)
	}
	if raw.Source.Where == "" {
		doc.Errorf(conffile.Path{"source"}, "source.where is missing; say which manual or code the addresses come from")
	}
	if !slices.Contains([]string{"high", "medium", "low"}, raw.Source.Confidence) {
		doc.Errorf(conffile.Path{"source", "confidence"}, "confidence is %q; it is one of high, medium, low", raw.Source.Confidence)
	}
	for i := range raw.Points {
		raw.Points[i].at = conffile.Path{"points", i}
	}
	var first *Profile
	for i, params := range variants(doc, raw) {
		c := compiler{doc: doc}
		p := c.compile(raw, params)
		if i == 0 {
			first = p
		}
		if p != nil {
			l.pairs.join(doc, p)
		}
	}
	return doc, raw, first
}

// variants returns parameter sets in which every value of every parameter
// occurs; the first has the defaults.
func variants(doc *conffile.Doc, raw *rawProfile) []map[string]string {
	first := map[string]string{}
	for name, param := range raw.Params {
		at := conffile.Path{"params", name}
		if len(param.OneOf) == 0 {
			doc.Errorf(at, "parameter %s has no one_of; list what it can be", name)
			continue
		}
		if param.Default != "" && !slices.Contains(param.OneOf, string(param.Default)) {
			doc.Errorf(at.With("default"), "default is %q; it is one of %s", param.Default, strings.Join(param.OneOf, ", "))
		}
		first[name] = param.OneOf[0]
		if param.Default != "" && slices.Contains(param.OneOf, string(param.Default)) {
			first[name] = string(param.Default)
		}
	}
	all := []map[string]string{first}
	for _, name := range slices.Sorted(maps.Keys(raw.Params)) {
		for _, v := range raw.Params[name].OneOf {
			if v != first[name] {
				other := maps.Clone(first)
				other[name] = v
				all = append(all, other)
			}
		}
	}
	for i := range raw.Points { // one that is there only when two parameters are not at their defaults
		other := raw.Points[i].form(raw.Params, first)
		if here := func(set map[string]string) bool { return maps.Equal(raw.Points[i].form(raw.Params, set), set) }; other != nil && !slices.ContainsFunc(all, here) {
			all = append(all, other)
		}
	}
	if len(all)*len(raw.Points) > mostForms {
		doc.Errorf(conffile.Path{"params"}, "the parameters give %d forms of %d points, more than the %d that are checked; list fewer values in one_of", len(all), len(raw.Points), mostForms)
		return all[:1]
	}
	return all
}

// mostForms bounds the forms of a profile times its points: far above any real
// one, low enough that a hostile file takes no time.
const mostForms = 50_000

// form returns the set of parameters with as few changes as bring the point
// in; nil when there is none.
func (p *rawPoint) form(params map[string]rawParam, set map[string]string) map[string]string {
	out := maps.Clone(set)
	for name, want := range p.When {
		if slices.Contains(want, set[name]) {
			continue
		}
		i := slices.IndexFunc(want, func(v string) bool { return slices.Contains(params[name].OneOf, v) })
		if i < 0 {
			return nil // told where it stands
		}
		out[name] = want[i]
	}
	return out
}

// join adds what p says to what is known, or reports the disagreement.
func (ps pairs) join(doc *conffile.Doc, p *Profile) {
	for i := range p.Points {
		pt := &p.Points[i]
		key := [2]string{p.Kind, pt.Name}
		was, known := ps[key]
		if !known {
			ps[key] = pair{pt.Class, pt.Unit, p.ID}
			continue
		}
		if was.class == pt.Class && was.unit == pt.Unit {
			continue
		}
		doc.Errorf(unitAt(doc, pt), "%s", disagree(p.Kind, pt, was))
	}
}

// unitAt is where the point says its unit, or its name where it says none.
func unitAt(doc *conffile.Doc, pt *Point) conffile.Path {
	for _, key := range []string{"as", "unit", "class", "name"} {
		if at := pt.at.With(key); doc.Has(at) {
			return at
		}
	}
	return pt.at
}

func disagree(kind string, pt *Point, was pair) string {
	return fmt.Sprintf("point %s of kind %s is %s here and %s in profile %s; one kind and point is one class and unit everywhere: give it another name",
		pt.Name, kind, classUnit(pt.Class, pt.Unit), classUnit(was.class, was.unit), was.by)
}

func classUnit(c telemetry.Class, unit string) string {
	if unit == "" {
		return c.String()
	}
	return c.String() + " in " + unit
}
