package stamp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"luquan/gateway/telemetry"
)

const (
	fileName = "stamps.q"
	slotSize = 256 << 10
	slotHead = 24
	magic    = "luquanT1"
)

// File is the open file of the bases. Writes need not be durable before Sync.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// document is what a slot holds; FORMAT.md.
type document struct {
	Floor    int64     `json:"floor"`
	Last     int64     `json:"last"`
	Boots    []*boot   `json:"boots"`
	Bases    []*basis  `json:"bases"`
	Residues []residue `json:"residues"`
}

// basis gives the stamps of some records, for ever.
type basis struct {
	Epoch uint64          `json:"epoch"`
	First uint64          `json:"first"`
	Last  uint64          `json:"last"` // reserved to here
	Off   int64           `json:"off"`
	Code  telemetry.Clock `json:"code"`
	Res   int             `json:"res"`
	// Forced: the clocks were set back too often to be followed, whatever they rested on.
	Forced bool `json:"forced,omitempty"`

	high uint64 // published to here, or perhaps (after a restart)
}

// residue says which offset owns the last three digits N.
type residue struct {
	N    int    `json:"n"`
	Boot string `json:"boot"`
	Off  int64  `json:"off"`
	From int64  `json:"from"` // mono; no record polled before it may use it
	Ceil int64  `json:"ceil"` // no stamp above it is published

	peak  int64 // the highest stamp given
	fresh bool  // made by this run: peak says all
}

// encode returns the bytes of a slot, padded.
func (d *document) encode(serial uint64) ([]byte, error) {
	doc, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("stamp: encode bases: %w", err)
	}
	n := slotHead + len(doc)
	if n > slotSize {
		return nil, fmt.Errorf("stamp: bases of %d bytes are over the %d of a slot", n, slotSize)
	}
	b := make([]byte, (n+511)/512*512)
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[8:], serial)
	binary.LittleEndian.PutUint32(b[16:], uint32(len(doc)))
	copy(b[slotHead:], doc)
	binary.LittleEndian.PutUint32(b[20:], checksum(b[:20], doc))
	return b, nil
}

func checksum(head, doc []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // made once, by the library
	return crc32.Update(crc32.Checksum(head, table), table, doc)
}

// decode reads a slot; serial 0 means that it holds nothing that can be used,
// and blank that it never held anything.
func decode(slot []byte) (d document, serial uint64, blank bool) {
	if len(slot) < slotHead || string(slot[:8]) != magic {
		for _, b := range slot {
			if b != 0 {
				return document{}, 0, false
			}
		}
		return document{}, 0, true
	}
	n := binary.LittleEndian.Uint32(slot[16:])
	if int64(n) > int64(len(slot)-slotHead) {
		return document{}, 0, false
	}
	doc := slot[slotHead : slotHead+n]
	if checksum(slot[:20], doc) != binary.LittleEndian.Uint32(slot[20:]) {
		return document{}, 0, false
	}
	if err := json.Unmarshal(doc, &d); err != nil || d.check() != nil {
		return document{}, 0, false
	}
	return d, binary.LittleEndian.Uint64(slot[8:]), false
}

// check refuses what this package never writes.
func (d *document) check() error {
	seen := map[int]bool{}
	for _, r := range d.Residues {
		if r.N < 0 || r.N >= residues || seen[r.N] {
			return fmt.Errorf("stamp: residue %d is out of range or comes twice", r.N)
		}
		seen[r.N] = true
	}
	for _, b := range d.Bases {
		if b == nil || b.Epoch == 0 || b.First == 0 || b.Last < b.First || b.Res < 0 || b.Res >= residues || b.Code > telemetry.ClockUnsure {
			return errors.New("stamp: a basis is no range")
		}
	}
	for _, b := range d.Boots {
		if b == nil || b.ID == "" {
			return errors.New("stamp: a boot has no name")
		}
	}
	return nil
}

// load reads the newest valid slot.
func load(f File) (d document, serial uint64, damaged bool) {
	for i := range int64(2) {
		slot := make([]byte, slotSize)
		n, err := f.ReadAt(slot, i*slotSize)
		if err != nil && !errors.Is(err, io.EOF) {
			damaged = true
			continue
		}
		x, s, blank := decode(slot[:n])
		switch {
		case s > serial:
			d, serial = x, s
		case s == 0 && !blank:
			damaged = true
		}
	}
	// One damaged slot is a write that a power cut broke off: the other counts.
	return d, serial, damaged && serial == 0
}

// cardFile is the file of the bases on a card that may refuse to make it or to
// write to it: then it is read as far as can be, and each write tries anew.
type cardFile struct {
	dir    string
	f      *os.File // nil: none can be opened
	writes bool
}

// OpenFile opens the file of the bases in dir, making both if need be. A card
// that is full or read-only is told by the first write, not here: a board must
// start on it.
func OpenFile(dir string) File {
	c := &cardFile{dir: dir}
	if err := c.open(); err != nil {
		c.f, _ = os.Open(filepath.Join(dir, fileName)) // what it holds counts
	}
	return c
}

// open makes the file ready to be written.
func (c *cardFile) open() error {
	if c.writes {
		return nil
	}
	f, err := openWhole(c.dir)
	if err != nil {
		return fmt.Errorf("keep the bases of stamps: %w", err)
	}
	if c.f != nil {
		_ = c.f.Close() // it was read only
	}
	c.f, c.writes = f, true
	return nil
}

// ReadAt is io.ReaderAt's. A file that could not be made yet is empty.
func (c *cardFile) ReadAt(b []byte, off int64) (int, error) {
	if c.f != nil {
		return c.f.ReadAt(b, off)
	}
	if _, err := os.Stat(filepath.Join(c.dir, fileName)); !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("keep the bases of stamps: %s cannot be read", filepath.Join(c.dir, fileName))
	}
	return 0, io.EOF
}

// WriteAt is io.WriterAt's.
func (c *cardFile) WriteAt(b []byte, off int64) (int, error) {
	if err := c.open(); err != nil {
		return 0, err
	}
	return c.f.WriteAt(b, off)
}

// Sync is File's.
func (c *cardFile) Sync() error {
	if err := c.open(); err != nil {
		return err
	}
	return c.f.Sync()
}

// Close is File's.
func (c *cardFile) Close() error {
	if c.f == nil {
		return nil
	}
	return c.f.Close()
}

// openWhole opens the file for writing; one of another length is set aside.
func openWhole(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, fileName)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = makeFile(dir, path)
	case err == nil && info.Size() != 2*slotSize:
		// Not ours, or of a crash before the first sync: kept for people to see.
		aside := path + ".aside." + time.Now().UTC().Format("20060102T150405")
		if err = os.Rename(path, aside); err == nil {
			err = makeFile(dir, path)
		}
	}
	if err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// makeFile makes the file whole before it gets its name.
func makeFile(dir, path string) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 2*slotSize))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
