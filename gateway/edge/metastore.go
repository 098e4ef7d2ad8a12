package edge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// metaStore keeps the meta documents on flash beside the records they
// describe, so that a backlog from before a change of configuration can still
// be announced. One file a cfg, written once.
type metaStore struct{ dir string }

var cfgFile = regexp.MustCompile(`^([0-9a-f]{8})\.json$`)

func openMetaStore(dir string) (metaStore, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return metaStore{}, fmt.Errorf("buffer.dir: make the folder of meta documents: %w", err)
	}
	return metaStore{dir}, nil
}

// Put keeps doc under cfg, durably, unless it is there already.
func (m metaStore) Put(cfg string, doc []byte) error {
	path := filepath.Join(m.dir, cfg+".json")
	if old, err := os.ReadFile(path); err == nil && string(old) == string(doc) {
		return nil
	}
	if err := writeFileSync(path+".new", doc); err != nil {
		return fmt.Errorf("keep meta document %s: %w", cfg, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("keep meta document %s: %w", cfg, err)
	}
	return syncDir(m.dir)
}

// Get returns the document of cfg; ok is false when it is not there.
func (m metaStore) Get(cfg string) (doc []byte, ok bool) {
	doc, err := os.ReadFile(filepath.Join(m.dir, cfg+".json"))
	return doc, err == nil
}

// Prune removes every document whose cfg is not in keep.
func (m metaStore) Prune(keep map[string]bool) error {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return fmt.Errorf("list meta documents: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if name := cfgFile.FindStringSubmatch(e.Name()); name != nil && !keep[name[1]] {
			if err := os.Remove(filepath.Join(m.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func writeFileSync(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
