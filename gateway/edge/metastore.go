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

// Put keeps doc under cfg, durably, unless it is there already.
func (m metaStore) Put(cfg string, doc []byte) error {
	if err := os.MkdirAll(m.dir, 0o750); err != nil {
		return fmt.Errorf("keep meta document %s: %w", cfg, err)
	}
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

// All returns every document that can be read, by its cfg, with an error for
// the others: records without their document are sent all the same.
func (m metaStore) All() (docs map[string][]byte, err error) {
	docs = map[string][]byte{}
	entries, err := os.ReadDir(m.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return docs, nil
	}
	if err != nil {
		return docs, fmt.Errorf("list meta documents: %w", err)
	}
	var errs []error
	for _, e := range entries {
		name := cfgFile.FindStringSubmatch(e.Name())
		if name == nil {
			continue
		}
		doc, err := os.ReadFile(filepath.Join(m.dir, e.Name()))
		if err != nil {
			errs = append(errs, fmt.Errorf("read meta document: %w", err))
			continue
		}
		docs[name[1]] = doc
	}
	return docs, errors.Join(errs...)
}

// Remove deletes the document of cfg; it may be gone already.
func (m metaStore) Remove(cfg string) error {
	err := os.Remove(filepath.Join(m.dir, cfg+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
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
