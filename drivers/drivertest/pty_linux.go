package drivertest

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// PTY opens a pseudo-terminal: its master end, which acts as the far end of a
// serial line, and the path of the port. It skips the test where there is none.
// The caller closes the master; closing it is pulling the adapter out.
func PTY(t testing.TB) (master *os.File, port string) {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	cerr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
		if tio, terr := unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil && terr == nil {
			tio.Iflag, tio.Oflag, tio.Lflag = 0, 0, 0 // no echo before the driver has opened its end
			err = unix.IoctlSetTermios(int(fd), unix.TCSETS, tio)
		}
	})
	if err != nil || cerr != nil {
		f.Close()
		t.Fatal(err, cerr)
	}
	return f, "/dev/pts/" + strconv.Itoa(n)
}
