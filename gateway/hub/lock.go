package hub

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockState makes the folder where it is missing, and takes it for this process alone until the file is closed:
// two hubs on one ledger would each tell the boards to forget what the other
// has not stored.
func lockState(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("state.dir: %s is in use by another process: stop the other hubd or give this one another folder", dir)
		}
		return nil, fmt.Errorf("state.dir: lock %s: %w", f.Name(), err)
	}
	return f, nil
}
