package conffile

import (
	"os"
	"path/filepath"
	"testing"
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
