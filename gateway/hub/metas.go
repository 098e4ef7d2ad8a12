package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"luquan/gateway/wire"
)

// metas keeps each gateway's last description in the hub's state folder, so
// that after a restart the hub knows whom it has not heard from.
type metas struct{ dir string }

func openMetas(dir string) (metas, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return metas{}, fmt.Errorf("state.dir: make the folder of gateways' descriptions: %w", err)
	}
	return metas{dir}, nil
}

// Keep stores m in place of the gateway's former description.
func (s metas) Keep(m wire.Meta) error {
	doc, _, err := m.Marshal()
	if err != nil {
		return err
	}
	// Names have no dots and no slashes (telemetry.ValidName).
	path := filepath.Join(s.dir, m.Site+"."+m.Gateway+".json")
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(doc)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Load returns all that was kept. A file that cannot be read is named in the
// error and the others are returned.
func (s metas) Load() ([]wire.Meta, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read gateways' descriptions: %w", err)
	}
	var list []wire.Meta
	var errs []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		doc, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
		if err == nil {
			var m wire.Meta
			if m, _, err = wire.ParseMeta(doc); err == nil {
				list = append(list, m)
				continue
			}
		}
		errs = append(errs, fmt.Errorf("a gateway's description in %s: %w", e.Name(), err))
	}
	return list, errors.Join(errs...)
}
