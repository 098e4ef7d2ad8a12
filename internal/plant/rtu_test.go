package plant

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// serialClient speaks Modbus RTU with raw bytes.
type serialClient struct {
	t *testing.T
	*os.File
}

func openLine(t *testing.T, p *Plant, bus string) *serialClient {
	t.Helper()
	f, err := os.OpenFile(p.Port(bus), os.O_RDWR|0x800 /* O_NONBLOCK */, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &serialClient{t, f}
}

func framed(unit byte, pdu []byte) []byte {
	out := append([]byte{unit}, pdu...)
	sum := checksum(out)
	return append(out, byte(sum), byte(sum>>8))
}

// gather reads until n bytes are there, or limit is over.
func (c *serialClient) gather(n int, limit time.Duration) []byte {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		c.t.Fatal(err)
	}
	var got []byte
	buf := make([]byte, 256)
	for len(got) < n {
		k, err := c.Read(buf)
		if err != nil {
			break
		}
		got = append(got, buf[:k]...)
	}
	return got
}

func (c *serialClient) ask(unit byte, pdu []byte, n int, limit time.Duration) []byte {
	c.t.Helper()
	if _, err := c.Write(framed(unit, pdu)); err != nil {
		c.t.Fatal(err)
	}
	return c.gather(n, limit)
}

func TestChecksumOfTheSpecification(t *testing.T) {
	// MODBUS over serial line V1.02, appendix B: 02 07 -> 41 12 on the wire
	if got := checksum([]byte{2, 7}); got != 0x1241 {
		t.Errorf("checksum %04x, want 1241", got)
	}
}

func TestLineKeepsItsPace(t *testing.T) {
	p := bench(t, Options{Frozen: true})
	c := openLine(t, p, "line")
	const char = 11 * time.Second / 9600
	begin := time.Now()
	got := c.ask(7, read(3, 0, 3), 11, soon)
	took := time.Since(begin)
	if want := framed(7, []byte{3, 6, 0x04, 0xD2, 0, 0, 0x3F, 0x80}); !bytes.Equal(got, want) {
		t.Fatalf("answer % x", got)
	}
	// 8 characters of request, 3.5 of silence, 11 of answer
	if least := 22 * char; took < least {
		t.Errorf("a transaction of 22.5 characters took %v, a line needs %v", took, least)
	}

	// The first byte is there long before the last: it is not one block. A busy
	// machine may let us look too late; were it one block, no look would help.
	split := false
	for range 20 {
		if _, err := c.Write(framed(7, read(3, 0, 3))); err != nil {
			t.Fatal(err)
		}
		first := c.gather(1, soon)
		rest := c.gather(11-len(first), soon)
		if len(first)+len(rest) != 11 {
			t.Fatalf("the answer came as %d and %d bytes", len(first), len(rest))
		}
		if split = len(first) <= 8; split {
			break
		}
	}
	if !split {
		t.Error("the answer always came in one block")
	}
}

func TestStrangersOnTheLineStaySilent(t *testing.T) {
	p := bench(t, Options{Frozen: true, OnWrite: func(Write) {}})
	c := openLine(t, p, "line")
	const quiet = 120 * time.Millisecond
	if got := c.ask(9, read(3, 0, 1), 1, quiet); got != nil {
		t.Errorf("a foreign unit answered % x", got)
	}
	bad := framed(1, read(3, 0, 1))
	bad[3] ^= 1
	if _, err := c.Write(bad); err != nil {
		t.Fatal(err)
	}
	if got := c.gather(1, quiet); got != nil {
		t.Errorf("a damaged request was answered % x", got)
	}
	if got := c.ask(7, read(3, 0, 1), 7, soon); len(got) != 7 {
		t.Errorf("afterwards the line answers % x", got)
	}
	if got := c.ask(7, []byte{6, 0, 0, 0, 1}, 5, soon); !bytes.Equal(got, framed(7, []byte{0x86, 1})) || p.WriteAttempts() != 1 {
		t.Errorf("a write was answered % x and counted %d times", got, p.WriteAttempts())
	}
}

func TestDelayedDeviceDoesNotHoldUpItsLine(t *testing.T) {
	p := bench(t, Options{Frozen: true})
	c := openLine(t, p, "line")
	clear, err := p.Fault(Fault{Device: "rtu-a", Do: "delay", Delay: 400 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer clear()
	begin := time.Now()
	if got := c.ask(1, read(3, 0, 1), 7, 50*time.Millisecond); got != nil {
		t.Fatalf("a device delayed by 400ms answered % x in %v", got, time.Since(begin))
	}
	if got := c.ask(7, read(3, 0, 1), 7, 300*time.Millisecond); len(got) != 7 || got[0] != 7 {
		t.Errorf("the other device answered % x", got)
	}
	if got := c.gather(7, soon); len(got) != 7 || got[0] != 1 || time.Since(begin) < 400*time.Millisecond {
		t.Errorf("the late answer is % x after %v", got, time.Since(begin))
	}
}

func TestGarbledLineCountsNothing(t *testing.T) {
	p := bench(t, Options{})
	c := openLine(t, p, "line")
	if got := c.ask(1, read(3, 65000, 2), 9, soon); len(got) != 9 || got[6] != 1 {
		t.Fatalf("serial % x", got)
	}
	clear, err := p.Fault(Fault{Bus: "line", Do: "garble"})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		got := c.ask(1, read(3, 65000, 2), 9, soon)
		if len(got) != 9 || checksum(got[:7]) == uint16(got[7])|uint16(got[8])<<8 {
			t.Errorf("a garbled answer is % x", got)
		}
	}
	clear()
	if got := c.ask(1, read(3, 65000, 2), 9, soon); len(got) != 9 || got[6] != 2 {
		t.Errorf("serial after garbling % x, want 2", got)
	}
}

func TestCutLineComesBackAtTheSamePath(t *testing.T) {
	dir := t.TempDir()
	p := bench(t, Options{Frozen: true, Dir: dir})
	path := p.Port("line")
	if path != filepath.Join(dir, "line") {
		t.Errorf("port %s, want it in %s", path, dir)
	}
	c := openLine(t, p, "line")
	if got := c.ask(7, read(3, 0, 1), 7, soon); len(got) != 7 {
		t.Fatalf("answer % x", got)
	}
	clear, err := p.Fault(Fault{Bus: "line", Do: "cut"})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("a cut line still reads: %d bytes, %v", n, err)
	}
	if _, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		t.Error("a cut line can be opened")
	}
	clear()
	if again := p.Port("line"); again != path {
		t.Errorf("port %s, before the cut %s", again, path)
	}
	c = openLine(t, p, "line")
	if got := c.ask(7, read(3, 0, 1), 7, soon); len(got) != 7 {
		t.Errorf("after the cut % x", got)
	}
}
