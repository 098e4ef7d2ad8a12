package powercut

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luquan/gateway/edge/buffer"
)

// TestMain is the guest's init when it is process 1: it never returns then,
// for its end is the power's.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		if err := guest(); err != nil {
			say("fail", err)
		}
		select {}
	}
	os.Exit(m.Run())
}

// modules are those of Debian's cloud kernel that a virtio disk needs, in order.
var modules = []string{"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"}

const bufferDir = "/data/buffer"

// say tells the host one line over the serial line.
func say(words ...any) { fmt.Println("@", strings.TrimSuffix(fmt.Sprintln(words...), "\n")) }

// guest brings the board up and reports until the power goes.
func guest() error {
	for _, m := range []struct{ kind, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"devpts", "/dev/pts"}, {"tmpfs", "/tmp"}} {
		if err := errors.Join(os.MkdirAll(m.dir, 0o755), unix.Mount(m.kind, m.dir, m.kind, 0, "")); err != nil {
			return fmt.Errorf("mount %s: %w", m.kind, err)
		}
	}
	for _, m := range modules {
		f, err := os.Open("/modules/" + m + ".ko")
		if err != nil {
			return err
		}
		if err := errors.Join(unix.FinitModule(int(f.Fd()), "", 0), f.Close()); err != nil {
			return fmt.Errorf("load %s: %w", m, err)
		}
	}
	if err := loopback(); err != nil {
		return err
	}
	if err := os.MkdirAll("/data", 0o755); err != nil {
		return err
	}
	err := unix.Mount("/dev/vda", "/data", "ext4", 0, "")
	for n := 0; errors.Is(err, unix.ENOENT) && n < 100; n++ { // the kernel looks for the disk in its own time
		time.Sleep(20 * time.Millisecond)
		err = unix.Mount("/dev/vda", "/data", "ext4", 0, "")
	}
	if err != nil {
		return fmt.Errorf("mount the disk: %w", err)
	}
	if err := tell("had", 0, 1, 1<<62); err != nil {
		return err
	}
	say("end")

	plant := exec.Command("/plantsim", "--site", site, "--dir", "/tmp/plant")
	if err := plant.Start(); err != nil {
		return err
	}
	for {
		c, err := net.Dial("tcp", "127.0.0.1:15041")
		if err == nil {
			_ = c.Close()
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	gatewayd := exec.Command("/gatewayd", "--debug", "--config", "/gateway.yaml")
	log, err := gatewayd.StderrPipe()
	if err != nil {
		return err
	}
	if err := gatewayd.Start(); err != nil {
		return err
	}
	say("start")
	if err := report(log); err != nil {
		return err
	}
	return fmt.Errorf("gatewayd ended: %w", gatewayd.Wait())
}

var committed = regexp.MustCompile(`msg="records are on flash".* epoch=(\d+) upto=(\d+)`)

// report follows gatewayd's log and tells each record that it says is on flash.
func report(log io.Reader) error {
	told := uint64(0)
	lines := bufio.NewReader(log)
	var epoch, upto uint64
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil
		}
		if m := committed.FindStringSubmatch(line); m != nil {
			epoch, _ = strconv.ParseUint(m[1], 10, 64) // digits only
			upto, _ = strconv.ParseUint(m[2], 10, 64)
		} else if strings.Contains(line, `msg="gateway runs"`) {
			say("run")
		} else if strings.Contains(line, "level=ERROR") || strings.Contains(line, "records lost") || !strings.HasPrefix(line, "time=") {
			say("log", strings.TrimSpace(line))
		}
		if upto > told && lines.Buffered() == 0 {
			if err := tell("ack", epoch, told+1, upto); err != nil {
				return err
			}
			told = upto
		}
	}
}

// tell reads records from the directory, beside whoever has it open, and says
// them: those of one epoch, or of all (0).
func tell(word string, epoch, from, to uint64) error {
	s, err := buffer.Look(os.DirFS(bufferDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	for _, e := range s.Epochs {
		if epoch != 0 && e.Epoch != epoch {
			continue
		}
		err := s.Records(e.Epoch, from, func(r buffer.Record) error {
			if r.Seq > to {
				return errEnough
			}
			_, err := fmt.Fprintf(out, "@ %s %d %d %x\n", word, r.Epoch, r.Seq, sum(r))
			return err
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
	}
	for _, f := range s.Check() {
		if word == "had" && !f.Harmless {
			fmt.Fprintln(out, "@ damage", f.File, f.Offset, f.Length, f.First, f.Last, f.What)
		}
	}
	return out.Flush()
}

var errEnough = errors.New("enough")

// sum stands for a record's kind and bytes.
func sum(r buffer.Record) []byte {
	h := sha256.Sum256(append([]byte{byte(r.Kind)}, r.Payload...))
	return h[:8]
}

// loopback brings the guest's own network up, netdevice(7).
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}
