package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place has a database that is written to, a folder of files, and nothing
// where a third source could be.
func places(t *testing.T) (db *sql.DB, sources []Source) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "book.sqlite")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE t (n INTEGER); CREATE TABLE u (n INTEGER)"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"bin/a": "one", "bin/sub/b": "two", "bin/.new-1": "half"} {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o750), os.WriteFile(p, []byte(text), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	return db, []Source{{"state/book.sqlite", path}, {"state/bin", filepath.Join(dir, "bin")}, {"none", filepath.Join(dir, "none")}}
}

// elsewhere are the same sources in another folder.
func elsewhere(t *testing.T, sources []Source) (out []Source) {
	dir := t.TempDir()
	for _, s := range sources {
		out = append(out, Source{s.Name, filepath.Join(dir, filepath.Base(s.Path))})
	}
	return out
}

func names(m Manifest) (out []string) {
	for _, f := range m.Files {
		out = append(out, f.Name)
	}
	return out
}

// TestWhileItIsWritten: rows go into two tables in one transaction each while
// the backup is taken; the copy has as many in the one as in the other.
func TestWhileItIsWritten(t *testing.T) {
	db, sources := places(t)
	ctx, stop := context.WithCancel(t.Context())
	begun, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if _, err := db.Exec("BEGIN; INSERT INTO t VALUES (1); INSERT INTO u VALUES (1); COMMIT"); err != nil {
				t.Error(err)
				break
			}
			if n++; n == 100 {
				close(begun)
			}
		}
		done <- n
	}()
	<-begun
	dir := filepath.Join(t.TempDir(), "b")
	var told []string
	m, err := Take(t.Context(), dir, Manifest{Hub: "h", Version: "v", Taken: time.Now()}, sources, func(f File) { told = append(told, f.Name) })
	stop()
	n := <-done
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"state/book.sqlite", "state/bin/a", "state/bin/sub/b"}
	if !reflect.DeepEqual(names(m), want) || !reflect.DeepEqual(told, want) {
		t.Errorf("taken %v, told %v", names(m), told)
	}
	to := elsewhere(t, sources)
	if _, err := Restore(t.Context(), dir, to, nil); err != nil {
		t.Fatal(err)
	}
	copied, err := sql.Open("sqlite", "file:"+to[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	var a, b int
	var check string
	if err := errors.Join(copied.QueryRow("SELECT count(*) FROM t").Scan(&a), copied.QueryRow("SELECT count(*) FROM u").Scan(&b),
		copied.QueryRow("PRAGMA integrity_check").Scan(&check)); err != nil {
		t.Fatal(err)
	}
	if a != b || a < 100 || a > n || check != "ok" {
		t.Errorf("%d and %d rows of %d, integrity %s", a, b, n, check)
	}
	if text, err := os.ReadFile(filepath.Join(to[1].Path, "sub", "b")); err != nil || string(text) != "two" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := Restore(t.Context(), dir, to, nil); err == nil || !strings.Contains(err.Error(), "move it away first") {
		t.Errorf("restored over what is there: %v", err)
	}
	if _, err := Take(t.Context(), dir, m, sources, nil); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("taken into what is there: %v", err)
	}
}

// TestUnsound: nothing of a backup that is not as it was written is restored.
func TestUnsound(t *testing.T) {
	_, sources := places(t)
	for name, c := range map[string]struct {
		harm func(dir string) error
		want string
	}{
		"not finished": {func(d string) error { return os.Remove(filepath.Join(d, manifestFile)) }, "not finished"},
		"a bit turned": {func(d string) error {
			p := filepath.Join(d, "state", "book.sqlite")
			data, err := os.ReadFile(p)
			data[len(data)/2] ^= 1
			return errors.Join(err, os.WriteFile(p, data, 0o640))
		}, "state/book.sqlite is not as it was written"},
		"cut short":      {func(d string) error { return os.Truncate(filepath.Join(d, "state", "bin", "a"), 1) }, "state/bin/a is not as it was written"},
		"a file is gone": {func(d string) error { return os.Remove(filepath.Join(d, "state", "bin", "a")) }, "state/bin/a is missing"},
		"no JSON":        {func(d string) error { return os.WriteFile(filepath.Join(d, manifestFile), []byte("{"), 0o640) }, "take another backup"},
		"a later format": {func(d string) error {
			return os.WriteFile(filepath.Join(d, manifestFile), []byte(`{"format":2,"version":"9"}`), 0o640)
		}, "use the version that took it (9)"},
		"a name that climbs out": {func(d string) error {
			return os.WriteFile(filepath.Join(d, manifestFile), []byte(`{"format":1,"files":[{"name":"../x"}]}`), 0o640)
		}, "lies outside"},
		"a name without a place": {func(d string) error {
			return errors.Join(os.WriteFile(filepath.Join(d, "x"), nil, 0o640), os.WriteFile(filepath.Join(d, manifestFile),
				fmt.Appendf(nil, `{"format":1,"files":[{"name":"x","sha256":%q}]}`, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"), 0o640))
		}, "has no place for it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "b")
			if _, err := Take(t.Context(), dir, Manifest{}, sources, nil); err != nil {
				t.Fatal(err)
			}
			if err := c.harm(dir); err != nil {
				t.Fatal(err)
			}
			to := elsewhere(t, sources)
			if _, err := Restore(t.Context(), dir, to, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if list, _ := os.ReadDir(filepath.Dir(to[0].Path)); len(list) != 0 {
				t.Errorf("%v was written", list)
			}
		})
	}
}

// TestCancelled: a backup that was broken off has no manifest.
func TestCancelled(t *testing.T) {
	_, sources := places(t)
	ctx, cancel := context.WithCancel(t.Context())
	dir := filepath.Join(t.TempDir(), "b")
	_, err := Take(ctx, dir, Manifest{}, sources, func(File) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := Read(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "not finished") {
		t.Errorf("%v", err)
	}
}
