//go:build !linux

package plant

import (
	"errors"
	"time"
)

// ptyPair is only there on Linux.
type ptyPair struct{ path string }

func openPTY(int) (*ptyPair, error) {
	return nil, errors.New("simulated serial lines need Linux")
}

func (*ptyPair) read([]byte, time.Time) (int, error) { return 0, errors.ErrUnsupported }
func (*ptyPair) write([]byte) error                  { return errors.ErrUnsupported }
func (*ptyPair) wait(time.Duration) bool             { return false }
func (*ptyPair) speed() int                          { return 0 }
func (*ptyPair) release()                            {}
func (*ptyPair) close()                              {}
