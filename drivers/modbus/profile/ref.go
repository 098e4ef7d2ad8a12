package profile

import (
	"reflect"
	"strings"

	"luquan/internal/conffile"
)

// Ref is a device's profile as gateway.yaml names it: an id alone, or a
// mapping with base: and params:, or one written out on the spot with the
// keys of a profile file. Points written with a base add to it, or override
// the keys they set of its point of the same name.
type Ref struct {
	Base   string
	Params map[string]string
	rawProfile
}

// UnmarshalScalar reads the short form, the id of a profile.
func (r *Ref) UnmarshalScalar(text string) error {
	r.Base = text
	return nil
}

// IsZero reports whether nothing was written.
func (r Ref) IsZero() bool { return reflect.ValueOf(r).IsZero() }

// Resolve returns the profile that r means. What is wrong is collected in
// doc, r standing at the path at, and the profile is nil. Those that are
// written alike are one profile: forty meters of one model keep it once.
func (r Ref) Resolve(lib *Library, doc *conffile.Doc, at conffile.Path) *Profile {
	lib.mu.Lock()
	defer lib.mu.Unlock()
	for _, k := range lib.resolved {
		if reflect.DeepEqual(k.ref, r) {
			return k.profile
		}
	}
	p := r.resolve(lib, doc, at)
	if p != nil {
		lib.resolved = append(lib.resolved, resolved{r, p})
	}
	return p
}

func (r Ref) resolve(lib *Library, doc *conffile.Doc, at conffile.Path) *Profile {
	if r.IsZero() {
		doc.Errorf(at, "profile is missing; name one of: %s", strings.Join(lib.names, ", "))
		return nil
	}
	c := compiler{doc: doc, at: at, base: r.Base}
	raw := rawProfile{}
	if r.Base != "" {
		base, ok := lib.models[r.Base]
		if !ok {
			where := at
			if doc.Has(at.With("base")) {
				where = at.With("base")
			}
			doc.Errorf(where, "profile %q is not known%s", r.Base, suggest(r.Base, lib.names))
			return nil
		}
		raw = *base
		raw.Points = make([]rawPoint, len(base.Points))
		for i, p := range base.Points {
			p.at = at
			raw.Points[i] = p
		}
	}
	r.overlay(&raw, at)
	if r.ID != "" {
		c.errorf(at.With("id"), "a profile written here has no id; base: names the one it builds on")
	}
	p := c.compile(&raw, r.Params)
	if p == nil {
		return nil
	}
	for i := range p.Points {
		pt := &p.Points[i]
		if was, known := lib.pairs[[2]string{p.Kind, pt.Name}]; known && (was.class != pt.Class || was.unit != pt.Unit) {
			c.errorf(unitAt(doc, pt), "%s", disagree(p.Kind, pt, was))
		}
	}
	if c.bad {
		return nil
	}
	return p
}

// overlay puts what r sets over raw.
func (r Ref) overlay(raw *rawProfile, at conffile.Path) {
	over := r.rawProfile
	points := over.Points
	over.ID, over.Points = "", nil
	merge(reflect.ValueOf(raw).Elem(), reflect.ValueOf(over))
	for i, p := range points {
		p.at = at.With("points", i)
		found := false
		for j := range raw.Points {
			if raw.Points[j].Name == p.Name && len(raw.Points[j].at) == len(at) {
				merge(reflect.ValueOf(&raw.Points[j]).Elem(), reflect.ValueOf(p))
				raw.Points[j].at, found = p.at, true
			}
		}
		if !found {
			raw.Points = append(raw.Points, p)
		}
	}
}

// merge sets in dst every exported field that src sets; a struct is merged
// field by field, everything else is replaced.
func merge(dst, src reflect.Value) {
	for i := range src.NumField() {
		f := src.Field(i)
		switch {
		case !src.Type().Field(i).IsExported() || f.IsZero():
		case f.Kind() == reflect.Struct:
			merge(dst.Field(i), f)
		default:
			dst.Field(i).Set(f)
		}
	}
}
