package plant

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A gateway takes its port exclusively. Ours stays open beyond its end, so the
// plant must give it free, or a second opening as an ordinary user is refused.
func TestExclusiveUseEndsWithTheRequest(t *testing.T) {
	p := bench(t, Options{Frozen: true})
	c := openLine(t, p, "line")
	exclusive := func() (on int) {
		if err := control(c.File, func(fd int) (err error) {
			on, err = unix.IoctlGetInt(fd, unix.TIOCGEXCL)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return on
	}
	if err := control(c.File, func(fd int) error { return unix.IoctlSetInt(fd, unix.TIOCEXCL, 0) }); err != nil {
		t.Fatal(err)
	}
	if exclusive() == 0 {
		t.Fatal("TIOCEXCL has no effect here")
	}
	if got := c.ask(7, read(3, 0, 1), 7, soon); len(got) != 7 {
		t.Fatalf("answer % x", got)
	}
	if exclusive() != 0 {
		t.Error("the line is still held exclusively after a request")
	}
}

func TestAMasterAtAnotherSpeedHearsNothing(t *testing.T) {
	p := bench(t, Options{Frozen: true})
	c := openLine(t, p, "line")
	if err := control(c.File, func(fd int) error { return raw(fd, 19200) }); err != nil {
		t.Fatal(err)
	}
	if got := c.ask(7, read(3, 0, 1), 1, 150*time.Millisecond); got != nil {
		t.Errorf("at another speed the answer is % x", got)
	}
	if err := control(c.File, func(fd int) error { return raw(fd, 9600) }); err != nil {
		t.Fatal(err)
	}
	if got := c.ask(7, read(3, 0, 1), 7, soon); len(got) != 7 {
		t.Errorf("at the line's speed the answer is % x", got)
	}
}
