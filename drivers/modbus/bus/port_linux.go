package bus

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// port is an open serial port or pseudo-terminal. Opened non-blocking, it is
// served by Go's poller, so deadlines work on it.
type port struct {
	*os.File
	raw interface{ Control(func(uintptr)) error }
}

// openPort opens the port for us alone: TIOCEXCL keeps other programs out,
// the lock also those of root.
func openPort(o RTUOptions) (stream, error) {
	f, err := os.OpenFile(o.Port, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err // the path is told by the caller
		}
		if errors.Is(err, unix.EBUSY) {
			err = errors.New("another program has it open")
		}
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = configure(int(fd), o) })
		if err == nil {
			err = cerr
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &port{File: f, raw: raw}, nil
}

// configure takes the port and sets the line: raw, no flow control, no modem lines.
func configure(fd int, o RTUOptions) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return fmt.Errorf("not a serial port: %w", err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.New("another program has it open")
	}
	if err := unix.IoctlSetInt(fd, unix.TIOCEXCL, 0); err != nil {
		return fmt.Errorf("take it exclusively: %w", err)
	}
	t.Iflag = unix.IGNBRK | unix.IGNPAR // a character with wrong parity is dropped: the CRC or the length tells
	t.Oflag, t.Lflag = 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.BOTHER
	if o.Parity != ParityNone {
		t.Cflag |= unix.PARENB
		t.Iflag |= unix.INPCK
	}
	if o.Parity == ParityOdd {
		t.Cflag |= unix.PARODD
	}
	if o.StopBits == 2 {
		t.Cflag |= unix.CSTOPB
	}
	t.Ispeed, t.Ospeed = uint32(o.Baud), uint32(o.Baud)
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS2, t); err != nil {
		return fmt.Errorf("set %d baud: %w", o.Baud, err)
	}
	if o.RS485 != RTSNone {
		if err := setRS485(fd, o.RS485); err != nil {
			return fmt.Errorf("this port's driver cannot switch RS-485 (rs485 rts): %w", err)
		}
	}
	return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIOFLUSH)
}

// setRS485 hands the driver's switching to the kernel (linux/serial.h, struct serial_rs485).
func setRS485(fd int, rts RTS) error {
	const enabled, onSend, afterSend = 1, 2, 4
	s := struct {
		flags, before, after uint32
		_                    [5]uint32
	}{flags: enabled | onSend}
	if rts == RTSLow {
		s.flags = enabled | afterSend
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSRS485, uintptr(unsafe.Pointer(&s)))
	if errno != 0 {
		return errno
	}
	return nil
}

// sleep blocks a thread for d, or less when a signal comes.
func (p *port) sleep(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&t, nil)
}

// flush drops what the kernel received and we did not read, and what it could
// not send: a request nobody took must not be answered later.
func (p *port) flush(b []byte) (n int, err error) {
	var more [maxRTU]byte
	cerr := p.raw.Control(func(fd uintptr) {
		for err == nil {
			into := more[:]
			if n < len(b) {
				into = b[n:]
			}
			var got int
			got, err = unix.Read(int(fd), into)
			n += max(got, 0)
			switch {
			case err == unix.EINTR:
				err = nil
			case err == nil && got == 0:
				err = io.EOF
			}
		}
		if err == unix.EAGAIN {
			err = unix.IoctlSetInt(int(fd), unix.TCFLSH, unix.TCOFLUSH)
		}
	})
	if err == nil {
		err = cerr
	}
	return n, err
}
