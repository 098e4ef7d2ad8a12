package powercut

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const site = "computing-centre"

// machine is all that stays the same from boot to boot.
type machine struct {
	kernel, initrd string
	socket         string
	disk           *disk
	served         chan error // one for each connection that ended
}

// need skips the test where a tool is missing, and fails it where all must be there.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("LUQUAN_REAL") == "1":
		t.Fatal("LUQUAN_REAL=1 and there is no ", what)
	default:
		t.Skip("there is no ", what)
	}
}

func newMachine(t *testing.T) *machine {
	for _, tool := range []string{"qemu-system-x86_64", "mke2fs", "apt-get", "dpkg-deb"} {
		_, err := exec.LookPath(tool)
		need(t, err == nil, tool)
	}
	dir := t.TempDir()
	root := kernel(t)
	m := &machine{initrd: filepath.Join(dir, "initrd.gz"), socket: filepath.Join(dir, "nbd"), served: make(chan error, 1)}
	if found, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*")); len(found) == 1 { // the pattern is sound
		m.kernel = found[0]
	} else {
		t.Fatalf("no kernel under %s: remove that folder and try again", root)
	}
	m.initramfs(t, dir, root)

	image := filepath.Join(dir, "disk")
	if err := os.WriteFile(image, make([]byte, 96<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", image).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	m.disk = newDisk(b)
	l, err := net.Listen("unix", m.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.served <- m.disk.serve(c)
		}
	}()
	return m
}

// kernel returns the folder where Debian's cloud kernel is unpacked. It is
// downloaded once and kept in the user's cache.
func kernel(t *testing.T) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "luquan", "guest-kernel")
	if have, _ := filepath.Glob(filepath.Join(cache, "linux-image-*-cloud-amd64")); len(have) > 0 {
		return have[len(have)-1]
	}
	need(t, os.Getenv("LUQUAN_REAL") == "1", "kernel for the guest in "+cache+"; LUQUAN_REAL=1 downloads it")
	out, err := exec.Command("apt-cache", "depends", "linux-image-cloud-amd64").Output()
	name := regexp.MustCompile(`linux-image-\S+-cloud-amd64`).FindString(strings.TrimPrefix(string(out), "linux-image-cloud-amd64"))
	if err != nil || name == "" {
		t.Fatalf("apt knows no linux-image-cloud-amd64 (%v): run apt-get update", err)
	}
	dir := t.TempDir()
	get := exec.Command("apt-get", "download", name)
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		t.Fatalf("apt-get download %s: %v\n%s", name, err, out)
	}
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(debs) != 1 {
		t.Fatalf("apt-get download %s left %q", name, debs)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(cache, "unpacking-")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("dpkg-deb", "-x", debs[0], fresh).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	if err := os.Rename(fresh, filepath.Join(cache, name)); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(cache, name)
}

// initramfs packs this test as init, gatewayd, plantsim, the kernel's modules
// and the configuration.
func (m *machine) initramfs(t *testing.T, dir, root string) {
	build := func(args ...string) {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	build("test", "-c", "-o", filepath.Join(dir, "init"), "luquan/internal/powercut")
	build("build", "-o", dir+"/", "luquan/cmd/gatewayd", "luquan/cmd/plantsim")
	config, err := os.ReadFile("../../firmware-config/sites/" + site + "/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// The site's own board, with its buffer on the disk and polled as fast as may be.
	text := string(config)
	for _, change := range [][2]string{
		{`buffer: \{.*\}`, `buffer: {dir: ` + bufferDir + `, max: 64MiB, commit_every: 100ms}`},
		{`/tmp/luquan/compute-north/`, `/tmp/plant/`},
		{`(schneider.*|apc.*)every: \d+s`, `${1}every: 100ms`},
	} {
		re := regexp.MustCompile(change[0])
		if !re.MatchString(text) {
			t.Fatalf("the site's gateway.yaml has nothing like %s", change[0])
		}
		text = re.ReplaceAllString(text, change[1])
	}
	files := map[string][]byte{"gateway.yaml": []byte(text)}
	read := func(as, name string) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[as] = b
	}
	for _, n := range []string{"init", "gatewayd", "plantsim"} {
		read(n, filepath.Join(dir, n))
	}
	for _, n := range modules {
		found, _ := filepath.Glob(filepath.Join(root, "lib/modules/*/kernel/drivers/*", n+".ko"))
		if len(found) != 1 {
			t.Fatalf("the kernel has no module %s", n)
		}
		read("modules/"+n+".ko", found[0])
	}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // a level that exists
	cpio(z, "modules", 0o040755, nil)
	for name, data := range files {
		cpio(z, name, 0o100755, data)
	}
	cpio(z, "TRAILER!!!", 0, nil)
	if err := errors.Join(z.Close(), os.WriteFile(m.initrd, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// cpio writes one entry of an initramfs, "newc" of
// https://docs.kernel.org/driver-api/early-userspace/buffer-format.html.
func cpio(w io.Writer, name string, mode int, data []byte) {
	pad := func(n int) string { return "\x00\x00\x00"[:(4-n%4)%4] }
	h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	_, _ = io.WriteString(w, h+name+"\x00"+pad(len(h)+len(name)+1)) // into memory
	_, _ = w.Write(data)
	_, _ = io.WriteString(w, pad(len(data)))
}

// boot runs the guest and calls line with what it says, without the mark,
// until the power is cut by ending qemu: when cut's channel says so, or at
// inFlush's wish when the next flush after that is under way. The disk then
// holds what the guest wrote, in its cache or not.
func (m *machine) boot(t *testing.T, inFlush bool, line func(words []string) (cut <-chan time.Time)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	q := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "stdio", "-kernel", m.kernel, "-initrd", m.initrd, "-append", "console=ttyS0 panic=-1 quiet",
		"-drive", "file=nbd:unix:"+m.socket+",if=virtio,format=raw,cache=writeback")
	out, err := q.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errOut bytes.Buffer
	q.Stderr = &errOut
	if err := q.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for r := bufio.NewReader(out); ; {
			s, err := r.ReadString('\n')
			if err != nil {
				return // half a line says nothing
			}
			lines <- s
		}
	}()
	var cut <-chan time.Time
	var flush <-chan struct{}
	cutNow := false
	powerOff := func() {
		cut, flush, cutNow = nil, nil, true
		m.disk.powerOff()
		if err := q.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	var other []string // what is not the guest's: the kernel's
	for open := true; open; {
		select {
		case <-cut:
			if !inFlush || flush != nil {
				powerOff()
				break
			}
			select { // one of before
			case <-m.disk.flushing:
			default:
			}
			flush, cut = m.disk.flushing, time.After(5*time.Second)
		case <-flush:
			powerOff()
		case s, ok := <-lines:
			if open = ok; !ok {
				break
			}
			s = strings.TrimRight(s, "\r\n")
			if words, ok := strings.CutPrefix(s, "@ "); ok {
				if c := line(strings.Fields(words)); c != nil {
					cut = c
				}
			} else {
				other = append(other, s)
			}
		}
	}
	_ = q.Wait() // it was killed
	<-m.served
	if !cutNow {
		t.Fatalf("the guest ended by itself (%v): %s\n%s", ctx.Err(), errOut.String(), strings.Join(other, "\n"))
	}
}
