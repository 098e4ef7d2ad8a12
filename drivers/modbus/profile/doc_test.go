package profile

import (
	"cmp"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestProfilesDoc: docs/profiles.md has every key that the loader takes, in
// the table of its mapping, and its tables have no others.
func TestProfilesDoc(t *testing.T) {
	data, err := os.ReadFile("../../../docs/profiles.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	tables := map[string]map[string]bool{}
	section := ""
	for line := range strings.Lines(doc) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(title)
			tables[section] = map[string]bool{}
		}
		if cells := strings.Split(line, "|"); len(cells) > 2 && strings.Contains(cells[1], "`") {
			for i, word := range strings.Split(cells[1], "`") {
				if i%2 == 1 {
					tables[section][word] = true
				}
			}
		}
	}
	for section, of := range map[string]reflect.Type{"Keys of a profile": reflect.TypeFor[rawProfile](), "Keys of a point": reflect.TypeFor[rawPoint]()} {
		for _, key := range keysOf(of) {
			if !tables[section][key] {
				t.Errorf("%s: %s is not in the table", section, key)
			}
			delete(tables[section], key)
		}
		for key := range tables[section] {
			t.Errorf("%s: %s is in the table, and the loader does not know it", section, key)
		}
	}
	for _, of := range []reflect.Type{reflect.TypeFor[Source](), reflect.TypeFor[Serial](), reflect.TypeFor[Limits](), reflect.TypeFor[rawParam](), reflect.TypeFor[rawBlock](),
		reflect.TypeFor[rawScaleFrom](), reflect.TypeFor[rawUnitFrom](), reflect.TypeFor[rawValidity](), reflect.TypeFor[rawRange]()} {
		for _, key := range keysOf(of) {
			if !strings.Contains(doc, key) {
				t.Errorf("%s: %s is nowhere", of.Name(), key)
			}
		}
	}
	for _, name := range encodingNames {
		if !strings.Contains(doc, "`"+name) {
			t.Errorf("encoding %s is not told", name)
		}
	}
}

// keysOf returns the keys of a mapping as conffile reads it.
func keysOf(of reflect.Type) (keys []string) {
	for i := range of.NumField() {
		if f := of.Field(i); f.IsExported() {
			keys = append(keys, cmp.Or(f.Tag.Get("yaml"), strings.ToLower(f.Name)))
		}
	}
	return keys
}
