package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// quarantineFile is the size at which a new file is begun.
const quarantineFile = 16 << 20

// Entry is one line in quarantine.
type Entry struct {
	Time    time.Time `json:"time"` // when it was put there
	Site    string    `json:"site"`
	Gateway string    `json:"gateway"`
	Epoch   uint64    `json:"epoch"`
	Seq     uint64    `json:"seq"`
	Reason  string    `json:"reason"`
	Line    string    `json:"line,omitempty"` // as it came
	Raw     []byte    `json:"raw,omitempty"`  // base64, in place of Line when that is not UTF-8
}

// ID names the record: site/gateway/epoch/seq.
func (e Entry) ID() string { return fmt.Sprintf("%s/%s/%d/%d", e.Site, e.Gateway, e.Epoch, e.Seq) }

// bytes returns the line as it came.
func (e Entry) bytes() []byte {
	if e.Raw != nil {
		return e.Raw
	}
	return []byte(e.Line)
}

// Filter chooses among entries; what is empty does not matter.
type Filter struct {
	Site, Gateway string
	ID            string
}

func (f Filter) match(e *Entry) bool {
	return (f.Site == "" || f.Site == e.Site) && (f.Gateway == "" || f.Gateway == e.Gateway) && (f.ID == "" || f.ID == e.ID())
}

// NewEntry returns the entry of a line, which it copies.
func NewEntry(at time.Time, site, gateway string, epoch, seq uint64, reason string, line []byte) Entry {
	e := Entry{Time: at.UTC(), Site: site, Gateway: gateway, Epoch: epoch, Seq: seq, Reason: reason}
	if utf8.Valid(line) {
		e.Line = string(line)
	} else {
		e.Raw = bytes.Clone(line)
	}
	return e
}

// Quarantine keeps lines that no store takes, in files of one JSON object a
// line that are only appended to. It may be used from several goroutines.
type Quarantine struct {
	dir string

	mu   sync.Mutex // guards the file being written
	file *os.File   // nil: open one at the next Add
	size int64
}

// OpenQuarantine opens or creates the quarantine in dir.
func OpenQuarantine(dir string) (*Quarantine, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("quarantine: %w", err)
	}
	return &Quarantine{dir: dir}, nil
}

// ReadOnlyQuarantine is the quarantine in dir, to be read only: nothing is made,
// and a folder that is not there is an empty one.
func ReadOnlyQuarantine(dir string) *Quarantine { return &Quarantine{dir: dir} }

// Close closes the file being written.
func (q *Quarantine) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.drop()
}

func (q *Quarantine) drop() error {
	if q.file == nil {
		return nil
	}
	err := q.file.Close()
	q.file = nil
	return err
}

// Add appends entries and returns when they are on the disk.
func (q *Quarantine) Add(entries []Entry) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, e := range entries {
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("quarantine: %w", err)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.append(b.Bytes()); err != nil {
		// After a failed write or sync the file's state is not known: the
		// next Add begins a new one.
		return errors.Join(fmt.Errorf("quarantine: %w", err), q.drop())
	}
	return nil
}

func (q *Quarantine) append(b []byte) error {
	if q.file != nil && q.size > quarantineFile {
		if err := q.drop(); err != nil {
			return err
		}
	}
	if q.file == nil {
		if err := q.begin(); err != nil {
			return err
		}
	}
	n, err := q.file.Write(b)
	q.size += int64(n)
	if err != nil {
		return err
	}
	return q.file.Sync()
}

// begin creates the next file: its name sorts after all others.
func (q *Quarantine) begin() error {
	names, err := q.names()
	if err != nil {
		return err
	}
	next := 1
	if len(names) > 0 {
		if _, err := fmt.Sscanf(names[len(names)-1], "quarantine-%d.jsonl", &next); err != nil {
			return fmt.Errorf("file name %q: %w", names[len(names)-1], err)
		}
		next++
	}
	f, err := os.OpenFile(filepath.Join(q.dir, fmt.Sprintf("quarantine-%09d.jsonl", next)), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	if err := syncDir(q.dir); err != nil {
		return errors.Join(err, f.Close())
	}
	q.file, q.size = f, 0
	return nil
}

func (q *Quarantine) names() ([]string, error) {
	list, err := os.ReadDir(q.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range list {
		if strings.HasPrefix(e.Name(), "quarantine-") && strings.HasSuffix(e.Name(), ".jsonl") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
