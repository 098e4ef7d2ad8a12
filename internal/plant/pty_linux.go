package plant

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ptyPair is a pseudo-terminal of our own: the plant holds the master side,
// the gateway opens path. The slave side is kept open too, so that a gateway
// that goes away does not end the line.
type ptyPair struct {
	path   string
	master *os.File
	slave  *os.File
	once   sync.Once
	gone   chan struct{}
}

func openPTY(baud int) (*ptyPair, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var number int
	err = control(master, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return fmt.Errorf("unlock: %w", err)
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		master.Close()
		return nil, err
	}
	p := &ptyPair{path: fmt.Sprintf("/dev/pts/%d", number), master: master, gone: make(chan struct{})}
	if p.slave, err = os.OpenFile(p.path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		master.Close()
		return nil, err
	}
	if err := control(p.slave, func(fd int) error { return raw(fd, baud) }); err != nil {
		p.close()
		return nil, fmt.Errorf("set %s to %d baud: %w", p.path, baud, err)
	}
	return p, nil
}

// raw takes every kind of translation and echo off, and sets the speed that a
// program finds which does not set one.
func raw(fd, baud int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.BOTHER
	t.Ispeed, t.Ospeed = uint32(baud), uint32(baud)
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS2, t)
}

func control(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := conn.Control(func(fd uintptr) { err = do(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// read waits until deadline for bytes of the gateway.
func (p *ptyPair) read(buf []byte, deadline time.Time) (int, error) {
	if err := p.master.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	return p.master.Read(buf)
}

func (p *ptyPair) write(b []byte) error {
	if err := p.master.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err := p.master.Write(b)
	return err
}

// speed returns the baud rate the gateway set, 0 when the line is gone.
func (p *ptyPair) speed() (baud int) {
	_ = control(p.slave, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
		if err == nil {
			baud = int(t.Ospeed)
		}
		return err
	}) // gone: 0 says it
	return baud
}

// release ends the exclusive use that a gateway asked for: since we keep the
// slave side open, the kernel would hold it beyond the gateway's end.
func (p *ptyPair) release() {
	_ = control(p.slave, func(fd int) error { return unix.IoctlSetInt(fd, unix.TIOCNXCL, 0) }) // gone: nothing to release
}

// wait returns after d, or false at once when the line is closed.
func (p *ptyPair) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.gone:
		return false
	case <-t.C:
		return true
	}
}

func (p *ptyPair) close() {
	p.once.Do(func() {
		close(p.gone)
		p.slave.Close()
		p.master.Close()
	})
}
