package buffer

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// memFS keeps what was written apart from what was synced, so that a power
// cut can be had at any moment, and fails on demand.
type memFS struct {
	mu     sync.Mutex
	files  map[string]*memNode
	dir    map[string]*memNode // what a power cut leaves of the directory
	locked bool
	ops    int // operations that reach the card, counted from 1
	fault  func(op int, what string) error
	space  int64 // of the file system; 0: no end of it
	others int64 // of it, taken by other programs
	reads  int64 // bytes
	writes int64
	syncs  int64
	blocks int64 // of 4 KiB that syncs brought to the card, as ext4 does
}

type memNode struct {
	data    []byte // what a reader sees
	durable []byte // what a power cut leaves
	dirty   map[int]bool
	shared  bool // with another card: copy before writing
}

// own copies what is shared.
func (n *memNode) own() {
	if n.shared {
		n.data, n.durable, n.shared = slices.Clone(n.data), slices.Clone(n.durable), false
	}
}

func newMemFS() *memFS {
	return &memFS{files: map[string]*memNode{}, dir: map[string]*memNode{}}
}

// crash returns what the card holds after a power cut now: everything synced,
// and of what was not each sector with a probability of p.
func (m *memFS) crash(r *rand.Rand, p float64) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := newMemFS()
	out.space, out.others = m.space, m.others
	for name, n := range m.dir {
		n.shared = true
		d, own := n.durable, false
		var dirty []int
		for s := range n.dirty {
			dirty = append(dirty, s)
		}
		slices.Sort(dirty)
		for _, s := range dirty {
			if p > 0 && r.Float64() < p {
				if !own {
					d, own = slices.Clone(d), true
				}
				d = copySector(d, n.data, s)
			}
		}
		c := &memNode{data: d, durable: d, dirty: map[int]bool{}, shared: true}
		out.files[name], out.dir[name] = c, c
	}
	return out
}

func copySector(dst, src []byte, s int) []byte {
	end := min((s+1)*sector, len(src))
	if len(dst) < end {
		dst = append(dst, make([]byte, end-len(dst))...)
	}
	copy(dst[s*sector:end], src[s*sector:end])
	return dst
}

// op counts an operation and asks for its fault. The caller holds mu.
func (m *memFS) op(what string) error {
	m.ops++
	if m.fault != nil {
		return m.fault(m.ops, what)
	}
	return nil
}

func (m *memFS) Lock(dir string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		return nil, fmt.Errorf("%q is in use by another process", dir)
	}
	m.locked = true
	return unlocker{m}, nil
}

type unlocker struct{ m *memFS }

func (u unlocker) Close() error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	u.m.locked = false
	return nil
}

func (m *memFS) List(dir string) (names []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := range m.files {
		names = append(names, filepath.Base(n))
	}
	return names, nil
}

func (m *memFS) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.files[name]
	if n == nil {
		return nil, fs.ErrNotExist
	}
	return &memFile{m, n}, nil
}

func (m *memFS) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.op("create"); err != nil {
		return nil, err
	}
	if m.files[name] != nil {
		return nil, fs.ErrExist
	}
	n := &memNode{dirty: map[int]bool{}}
	m.files[name] = n
	return &memFile{m, n}, nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.op("remove"); err != nil {
		return err
	}
	if m.files[name] == nil {
		return fs.ErrNotExist
	}
	delete(m.files, name)
	return nil
}

func (m *memFS) SyncDir(string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	if err := m.op("syncdir"); err != nil {
		return err
	}
	m.dir = map[string]*memNode{}
	for k, v := range m.files {
		m.dir[k] = v
	}
	return nil
}

func (m *memFS) Avail(string) (avail, total int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.space == 0 {
		return 1 << 40, 1 << 40, nil
	}
	return m.room(), m.space, nil
}

// room is what is left of the file system. The caller holds mu.
func (m *memFS) room() int64 {
	n := m.space - m.others
	for _, f := range m.files {
		n -= int64(len(f.data))
	}
	return max(0, n)
}

// fill lets other programs take all of the file system but left bytes.
func (m *memFS) fill(left int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.space, m.others = 1<<30, 0
	m.others = m.room() - left
}

type memFile struct {
	m *memFS
	n *memNode
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.fault != nil {
		if err := f.m.fault(f.m.ops, "read"); err != nil {
			return 0, err
		}
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	f.m.reads += int64(n)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// errShort makes a write write half of its bytes and fail.
type errShort struct{ error }

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.m.op("write")
	if _, short := err.(errShort); err != nil && !short {
		return 0, err
	} else if short {
		b, err = b[:len(b)/2], syscall.EIO
	}
	n := f.n
	n.own()
	if grow := off + int64(len(b)) - int64(len(n.data)); f.m.space > 0 && grow > f.m.room() {
		b, err = b[:max(0, int64(len(b))-(grow-f.m.room()))], syscall.ENOSPC
	}
	if end := int(off) + len(b); len(n.data) < end {
		n.data = append(n.data, make([]byte, end-len(n.data))...)
	}
	copy(n.data[off:], b)
	f.m.writes += int64(len(b))
	for s := int(off) / sector; s*sector < int(off)+len(b); s++ {
		n.dirty[s] = true
	}
	return len(b), err
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.syncs++
	n := f.n
	if err := f.m.op("sync"); err != nil {
		// As Linux does: the pages count as clean, so no later sync writes them.
		n.dirty = map[int]bool{}
		return err
	}
	n.own()
	blocks := map[int]bool{}
	for s := range n.dirty {
		n.durable = copySector(n.durable, n.data, s)
		blocks[s*sector/4096] = true
	}
	f.m.blocks += int64(len(blocks))
	n.dirty = map[int]bool{}
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *memFile) Close() error { return nil }
