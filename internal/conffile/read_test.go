package conffile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, maxBytes+1); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): "there is no such file; check the path",
		dir:                             "this is a folder; name the file in it",
		os.DevNull:                      "this is a device or a pipe, not a file",
		big:                             "the file has 4194305 bytes, more than the 4194304 a configuration may have",
		big + "/x":                      "cannot be read: not a directory",
	} {
		if _, err := Read(file); err == nil || err.Error() != file+": "+want {
			t.Errorf("got %v, want %s: %s", err, file, want)
		}
	}
}

// One mistake is one sentence: nothing that only follows from it is told.
func TestOneSentence(t *testing.T) {
	for _, tt := range []struct{ data, want string }{
		{"a: [[\n", "f:1:5: not valid YAML: the [ here is not closed by a ]"},
		{"a: x\n\tb: y\n", "f:2:1: not valid YAML: a tab stands here; indent with spaces"},
		{"nmae: x\n", `f:1:1: unknown key "nmae"; did you mean "name"?`},
		{"name: x\nunit: one\n", `f:2:7: "one" is not a whole number`},
		{"name: x\nunit: 1\nunit: 2\n", `f:3:1: key "unit" stands here a second time; keep one`},
		{"just text\n", "f:1:1: want keys and values here (key: value), not a single value"},
		{"name: x\nunit: 0\n", "f:2:7: unit is 0"},
		{"unit: 1\n", "f:1:1: name is missing"},
		{"nmae: x\nname: y z\n", "f:1:1: unknown key \"nmae\"; did you mean \"name\"?\nf:2:7: name has a space"},
	} {
		var v struct {
			Name string
			Unit *int
		}
		doc, _ := Parse("f", []byte(tt.data), &v)
		if v.Name == "" {
			doc.Errorf(Path{"name"}, "name is missing")
		} else if strings.Contains(v.Name, " ") {
			doc.Errorf(Path{"name"}, "name has a space")
		}
		if v.Unit != nil && *v.Unit == 0 {
			doc.Errorf(Path{"unit"}, "unit is 0")
		}
		if err := doc.Err(); err == nil || err.Error() != tt.want {
			t.Errorf("%q: got\n%v\nwant\n%s", tt.data, err, tt.want)
		}
	}
}

// Deep nesting is refused before the YAML library takes minutes over it.
func TestDeep(t *testing.T) {
	for _, data := range []string{
		"a: " + strings.Repeat("[", 100_000), "a: " + strings.Repeat("{a: ", 100_000), strings.Repeat("- ", 100_000) + "x",
	} {
		begin := time.Now()
		if _, err := Parse("f", []byte(data), &struct{}{}); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.20q: got %v, want one sentence", data, err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%.20q took %v", data, took)
		}
	}
}

func TestNotText(t *testing.T) {
	var v struct{ A string }
	for _, tt := range []struct{ data, want string }{
		{"a: x\nb: \xb9\xa9", "f:2:4: this is not plain text in UTF-8; save the file as UTF-8, without other bytes"}, // GBK
		{"\xff\xfea\x00", "f:1:1: this is not plain text in UTF-8; save the file as UTF-8, without other bytes"},
		{"a: 供热\x00", "f:1:6: this is not plain text in UTF-8; save the file as UTF-8, without other bytes"},
	} {
		if _, err := Parse("f", []byte(tt.data), &v); err == nil || err.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.data, err, tt.want)
		}
	}
	if _, err := Parse("f", []byte("\uFEFFa: 供热站\n"), &v); err != nil || v.A != "供热站" {
		t.Errorf("a byte order mark: got %q, %v", v.A, err)
	}
}
