package buffer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// FS is the little of a file system that the queue needs. Names are full
// paths. The real one is used when Options.FS is nil; another serves for
// injecting faults and for counting what goes to flash.
type FS interface {
	// Lock makes the directory if it is missing and takes it for this process alone until the closer is closed.
	Lock(dir string) (io.Closer, error)
	// List returns the names, without path, of the files in dir.
	List(dir string) ([]string, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Create makes a file that must not exist.
	Create(name string) (File, error)
	// Remove deletes a file.
	Remove(name string) error
	// SyncDir makes the creation and removal of dir's files durable.
	SyncDir(dir string) error
	// Avail returns how many bytes a process like this one may still write to dir's file system, and how many it has in all.
	Avail(dir string) (avail, total int64, err error)
}

// File is an open file. WriteAt beyond the end extends it.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes what was written, and the file's length, durable (fdatasync).
	Sync() error
	// Size returns the file's length in bytes.
	Size() (int64, error)
}

// osFS is the real file system.
type osFS struct{}

func (osFS) Lock(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	// A directory that a power cut takes back would take the records with it.
	if d, err := os.Open(filepath.Dir(filepath.Clean(dir))); err == nil {
		_ = d.Sync() // not every file system can; the segments' own syncs still tell the truth
		_ = d.Close()
	}
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o640)
	if errors.Is(err, syscall.EROFS) { // a lock needs no write
		f, err = os.Open(name)
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%q is in use by another process: stop the other gatewayd or give this one another directory", dir)
		}
		return nil, fmt.Errorf("lock %q: %w", f.Name(), err)
	}
	return f, nil
}

func (osFS) List(dir string) ([]string, error) {
	des, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(des))
	for _, de := range des {
		if de.Type().IsRegular() {
			names = append(names, de.Name())
		}
	}
	return names, nil
}

func (osFS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, syscall.EROFS) { // a dying card: what it holds can still be read and sent
		if f, err = os.Open(name); err == nil {
			return readOnlyFile{osFile{f}}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) Avail(dir string) (avail, total int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), nil
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// readOnlyFile is a file on a file system that the kernel made read-only.
type readOnlyFile struct{ osFile }

// WriteAt refuses in the kernel's words.
func (f readOnlyFile) WriteAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("write %s: %w", f.Name(), syscall.EROFS)
}
