package bus

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// newSocket makes a stream of a connection. On a real one the system calls are
// made without telling the scheduler: they never block, and what it does for
// those that may (its monitor is woken and looks again every 20 us, the thread
// is taken for lost and another is woken) costs several times what they do.
func newSocket(c net.Conn) stream {
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return rawSocket{socket{c}, raw}
		}
	}
	return socket{c}
}

// rawSocket reads and writes a non-blocking socket.
type rawSocket struct {
	socket
	raw syscall.RawConn
}

// Read implements io.Reader.
func (s rawSocket) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	rerr := s.raw.Read(func(fd uintptr) bool {
		n, err = rawCall(syscall.SYS_READ, fd, b)
		return err != syscall.EAGAIN
	})
	switch {
	case rerr != nil:
		return 0, rerr
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements io.Writer.
func (s rawSocket) Write(b []byte) (done int, err error) {
	werr := s.raw.Write(func(fd uintptr) bool {
		for done < len(b) {
			var n int
			if n, err = rawCall(syscall.SYS_WRITE, fd, b[done:]); err != nil {
				return err != syscall.EAGAIN
			}
			done += n
		}
		return true
	})
	switch {
	case werr != nil:
		return done, werr
	case err != nil:
		return done, os.NewSyscallError("write", err)
	}
	return done, nil
}

// rawCall is read(2) or write(2), again while a signal interrupts it.
func rawCall(trap, fd uintptr, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
