// Package backup copies what a hub knows while it runs, and puts it back.
//
// A backup is a folder: the SQLite files as snapshots (VACUUM INTO, so that each
// is one moment of its file, whole and compact), the other files as they are,
// and manifest.json with the size and SHA-256 of each. The manifest is written
// last: a folder without one is not a backup.
//
// The files are of different moments, and their order makes that harmless. The
// ledger comes first: whatever it calls stored or quarantined was so before the
// later copies of history and quarantine were begun, so it is in them. What
// came in between the history has and the ledger does not: the board sends it
// again, and it is stored as the same row.
package backup

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the database/sql driver "sqlite"
)

// manifestFile is written last and read first.
const manifestFile = "manifest.json"

// format is of the folder; a later one is refused.
const format = 1

// Source is a file or a folder that belongs to the backup. A file whose name
// ends in .sqlite or .db is a SQLite file; beside it its -wal and -shm are left
// out. What does not exist is left out too.
type Source struct {
	Name string // in the backup: relative, with slashes
	Path string // of the hub
}

// File is one file of a backup.
type File struct {
	Name   string `json:"name"` // relative, with slashes
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Manifest says what a backup holds.
type Manifest struct {
	Format  int       `json:"format"`
	Hub     string    `json:"hub"`     // its name in hub.yaml
	Version string    `json:"version"` // of the program that took it
	Taken   time.Time `json:"taken"`   // when it was begun
	Files   []File    `json:"files"`
}

// Bytes is the size of all files.
func (m Manifest) Bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Bytes
	}
	return n
}

// Take copies the sources, in their order, into dir, which must be missing or
// empty. m has Hub, Version and Taken; told, which may be nil, hears of each
// file that is done. On an error dir holds no manifest.
func Take(ctx context.Context, dir string, m Manifest, sources []Source, told func(File)) (Manifest, error) {
	m.Format = format
	if err := empty(dir); err != nil {
		return m, err
	}
	for _, s := range sources {
		names, err := files(s.Path)
		if err != nil {
			return m, fmt.Errorf("backup: %w", err)
		}
		for _, rel := range names {
			name := s.Name
			if rel != "." {
				name += "/" + filepath.ToSlash(rel)
			}
			from, to := filepath.Join(s.Path, rel), filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
				return m, fmt.Errorf("backup: %w", err)
			}
			if isDB(from) {
				err = snapshot(ctx, from, to)
			} else {
				err = copyFile(ctx, from, to)
			}
			if errors.Is(err, fs.ErrNotExist) {
				continue // it was removed since it was listed
			}
			if err != nil {
				return m, fmt.Errorf("backup: %s: %w", from, err)
			}
			f, err := sum(ctx, to)
			if err != nil {
				return m, fmt.Errorf("backup: %w", err)
			}
			f.Name = name
			m.Files = append(m.Files, f)
			if told != nil {
				told(f)
			}
		}
	}
	doc, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, fmt.Errorf("backup: %w", err)
	}
	if err := syncTree(dir); err != nil {
		return m, fmt.Errorf("backup: %w", err)
	}
	if err := writeFile(filepath.Join(dir, manifestFile), doc); err != nil {
		return m, fmt.Errorf("backup: %w", err)
	}
	return m, nil
}

// Read returns the manifest of a backup after every file was compared with it.
func Read(ctx context.Context, dir string) (Manifest, error) {
	var m Manifest
	doc, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s holds no %s: it is no backup, or one that was not finished", dir, manifestFile)
	}
	if err != nil {
		return m, fmt.Errorf("backup: %w", err)
	}
	if err := json.Unmarshal(doc, &m); err != nil {
		return m, fmt.Errorf("%s: %w: take another backup", filepath.Join(dir, manifestFile), err)
	}
	if m.Format != format {
		return m, fmt.Errorf("%s is of format %d and this program reads %d: use the version that took it (%s)", dir, m.Format, format, m.Version)
	}
	for _, f := range m.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Name)) {
			return m, fmt.Errorf("%s names the file %q, which lies outside: not restored", manifestFile, f.Name)
		}
		have, err := sum(ctx, filepath.Join(dir, filepath.FromSlash(f.Name)))
		if errors.Is(err, fs.ErrNotExist) {
			return m, fmt.Errorf("%s: %s is missing from the backup", dir, f.Name)
		}
		if err != nil {
			return m, fmt.Errorf("backup: %w", err)
		}
		if have.Bytes != f.Bytes || have.SHA256 != f.SHA256 {
			return m, fmt.Errorf("%s: %s is not as it was written (%d bytes, %d when the backup was taken): use another backup", dir, f.Name, have.Bytes, f.Bytes)
		}
	}
	return m, nil
}

// Restore puts the files of a backup back where the sources say. Nothing is
// written unless every file of the backup is sound and every place is free.
func Restore(ctx context.Context, dir string, sources []Source, told func(File)) (Manifest, error) {
	m, err := Read(ctx, dir)
	if err != nil {
		return m, err
	}
	for _, s := range sources {
		names, err := files(s.Path)
		if err != nil {
			return m, fmt.Errorf("restore: %w", err)
		}
		if len(names) > 0 {
			return m, fmt.Errorf("restore: %s is there already; move it away first (nothing was changed)", filepath.Join(s.Path, names[0]))
		}
	}
	for _, f := range m.Files {
		to, known := place(f.Name, sources)
		if !known {
			return m, fmt.Errorf("restore: the backup holds %s, and this configuration has no place for it: use the hub.yaml it was taken with", f.Name)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
			return m, fmt.Errorf("restore: %w", err)
		}
		if err := copyFile(ctx, filepath.Join(dir, filepath.FromSlash(f.Name)), to); err != nil {
			return m, fmt.Errorf("restore: %s: %w", to, err)
		}
		if told != nil {
			told(f)
		}
	}
	for _, s := range sources {
		if _, err := os.Stat(s.Path); err != nil {
			continue // the backup has nothing for it
		}
		if err := errors.Join(syncTree(s.Path), syncDir(filepath.Dir(s.Path))); err != nil {
			return m, fmt.Errorf("restore: %w", err)
		}
	}
	return m, nil
}

// place is where a file of the backup belongs.
func place(name string, sources []Source) (string, bool) {
	for _, s := range sources {
		if name == s.Name {
			return s.Path, true
		}
		if rest, in := strings.CutPrefix(name, s.Name+"/"); in {
			return filepath.Join(s.Path, filepath.FromSlash(rest)), true
		}
	}
	return "", false
}

func empty(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if len(list) > 0 {
		return fmt.Errorf("backup: %s is not empty; name a new folder, for example one with today's date", dir)
	}
	return nil
}

func isDB(path string) bool {
	return strings.HasSuffix(path, ".sqlite") || strings.HasSuffix(path, ".db")
}

// files lists the regular files of a folder, or "." where path is a file
// itself; nothing where there is nothing.
func files(path string) (names []string, err error) {
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		base := d.Name()
		for _, end := range []string{"-wal", "-shm", "-journal"} {
			if db, cut := strings.CutSuffix(base, end); cut && isDB(db) {
				return nil // the snapshot has what is in them
			}
		}
		if !d.Type().IsRegular() || strings.HasPrefix(base, ".new-") {
			return nil
		}
		rel, err := filepath.Rel(path, p)
		names = append(names, rel)
		return err
	})
	return names, err
}

// snapshot copies a SQLite file as it is at one moment, while it is written to.
func snapshot(ctx context.Context, from, to string) (err error) {
	if _, err := os.Stat(from); err != nil {
		return err
	}
	q := url.Values{"_pragma": {"busy_timeout(10000)"}, "mode": {"ro"}}
	path, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	f, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func copyFile(ctx context.Context, from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, reader{ctx, in})
	return errors.Join(err, out.Sync(), out.Close())
}

func writeFile(path string, data []byte) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	_, err = out.Write(data)
	return errors.Join(err, out.Sync(), out.Close(), syncDir(filepath.Dir(path)))
}

// reader stops when its context is done.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

func sum(ctx context.Context, path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, reader{ctx, f})
	return File{Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncTree makes the entries of a folder and of those in it durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(p)
	})
}
