package buffer

import "syscall"

// Sync is fdatasync: the data and the length, not the time of change, which
// would cost a write of the inode at every commit.
func (f osFile) Sync() error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return err
		}
	}
}
