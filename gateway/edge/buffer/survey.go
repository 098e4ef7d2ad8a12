package buffer

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Survey is what a buffer's directory holds, as the next opening would find
// it: taken with the same recovery, without a lock and without writing a byte.
// It is safe beside a queue that has the directory open; what that queue
// writes, frees or uses again meanwhile may be missing from it.
type Survey struct {
	Epochs []SurveyEpoch // that hold records, oldest first; the newest one in any case
	Files  []SurveyFile  // the segment files by name
	Cursor time.Time     // when what is freed was last written; zero when no cursor can be read

	q     *Queue
	holes []hole
}

// SurveyEpoch describes one epoch on flash.
type SurveyEpoch struct {
	Held            // Current: the newest; a queue that has it open may be adding to it
	Freed    uint64 // by the cursor: every sequence number up to it is settled
	Also     [][2]uint64
	Records  uint64    // on flash and not freed
	Segments int       // that hold them
	Begun    time.Time // of the oldest segment there is; zero when there is none
	Ended    string    // "clean stop" or "power cut"; for the newest epoch of a running queue that is not yet true
}

// SurveyFile describes one segment file.
type SurveyFile struct {
	Name  string
	Bytes int64
	State string // "records", "spare" or "set aside": no readable header
	Epoch uint64 // these are 0 unless State is records
	First uint64
	Last  uint64 // First-1 when there is none in it yet
}

// Look surveys the directory that fsys is the root of: os.DirFS(dir), say, of
// a dead board's card. An error means that the directory cannot be listed.
func Look(fsys fs.FS) (*Survey, error) {
	q := &Queue{fs: readFS{fsys}, opt: Options{Dir: ".", Now: time.Now}, log: slog.New(slog.DiscardHandler), nextGen: 1, nextFile: 1}
	names, err := q.fs.List(".")
	if err != nil {
		return nil, fmt.Errorf("buffer: look: %w", err)
	}
	c, _ := q.readCursor()
	rec := q.recover(names)
	s := &Survey{q: q, holes: rec.holes, Cursor: c.written}
	ends := map[uint64]string{}
	for _, e := range rec.ends {
		ends[e.Epoch] = e.Reason
	}
	for i, ep := range q.epochs {
		newest := i == len(q.epochs)-1
		e := SurveyEpoch{
			Held:  Held{Epoch: ep.id, First: ep.freed.next(1), Last: ep.last, Label: ep.label, Current: newest},
			Freed: ep.freed.upto, Also: slices.Clone(ep.freed.also), Segments: len(ep.segs), Ended: ends[ep.id],
		}
		for j, g := range ep.segs {
			if j == 0 || g.created.Before(e.Begun) {
				e.Begun = g.created
			}
			e.Records += ep.freed.count(g.base, g.last)
			if e.Ended == "" && j == 0 { // later segments name the epoch before theirs
				e.Ended = q.endedBy(ep.id)
			}
			s.Files = append(s.Files, SurveyFile{filepath.Base(g.name), fileSize(fsys, g.name), "records", ep.id, g.base, g.last})
		}
		if newest || e.First <= e.Last {
			s.Epochs = append(s.Epochs, e)
		}
	}
	for _, sp := range q.spares {
		s.Files = append(s.Files, SurveyFile{Name: filepath.Base(sp.name), Bytes: int64(sp.size), State: "spare"})
	}
	for _, n := range names {
		known := slices.ContainsFunc(s.Files, func(f SurveyFile) bool { return f.Name == n })
		if strings.HasPrefix(n, "seg-") && strings.HasSuffix(n, ".q") && !known {
			s.Files = append(s.Files, SurveyFile{Name: n, Bytes: fileSize(fsys, n), State: "set aside"})
		}
	}
	slices.SortFunc(s.Files, func(a, b SurveyFile) int { return cmp.Compare(a.Name, b.Name) })
	return s, nil
}

// endedBy returns how an epoch ended by the headers of the one after it.
func (q *Queue) endedBy(id uint64) string {
	for _, ep := range q.epochs {
		for _, s := range ep.segs {
			if s.prevEpoch == id {
				return newEpochEnd(id, s.prevLast, s.prevClean, "").Reason
			}
		}
	}
	return ""
}

func fileSize(fsys fs.FS, name string) int64 {
	st, err := fs.Stat(fsys, filepath.ToSlash(name))
	if err != nil {
		return 0
	}
	return st.Size()
}

// Record is one record as a survey finds it.
type Record struct {
	Entry
	Time  time.Time // when it was appended, to within a commit, by the board's clock of then
	Freed bool      // by the cursor it is settled elsewhere and will not be sent again
}

// Records calls f with every record of an epoch that is on flash, freed ones
// that are still there included, from sequence number from on, in order. It
// stops at the first error of f and returns it. A segment that is used again
// meanwhile is passed over, one that cannot be read is an error. The payload is
// f's to keep.
func (s *Survey) Records(epoch, from uint64, f func(Record) error) error {
	ep := s.q.epoch(epoch)
	if ep == nil {
		return nil
	}
	for _, g := range ep.segs {
		if g.last < from {
			continue
		}
		b, same, err := s.content(g)
		if err != nil {
			return fmt.Errorf("buffer: read segment %q: %w", g.name, err)
		}
		if !same {
			continue
		}
		c := *g // so that the content does not stay in RAM
		c.parse(b)
		for _, r := range c.refs[c.find(from):] {
			rec := Record{Entry{epoch, r.seq, r.kind, payloadOf(r.kind, c.body(r))}, c.when(r.seq), ep.freed.has(r.seq)}
			if err := f(rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// content reads a segment and reports whether it is still the one that was
// surveyed.
func (s *Survey) content(g *segment) (b []byte, same bool, err error) {
	if b, err = s.q.readFile(g.name, g.size); err != nil {
		return nil, false, err
	}
	h, _, state := s.q.readHeader(g.name)
	return b, state == headerGood && h.gen == g.gen, nil
}

// Finding is something that is not as it was written.
type Finding struct {
	File        string
	Offset      int64 // of what is damaged, and how long it is; both 0 when it is the file as a whole
	Length      int64
	Epoch       uint64 // of the records that are lost with it
	First, Last uint64 // both 0 when none is lost
	Harmless    bool   // nothing that was on flash is lost with it
	What        string // a sentence: what it is and what it means
}

// Check reads every byte of the segments and the cursor and returns what is
// damaged, by file and offset.
func (s *Survey) Check() []Finding {
	out := s.checkCursor()
	for _, f := range s.Files {
		if f.State == "set aside" {
			out = append(out, Finding{File: f.Name, Length: f.Bytes, What: "neither of its headers can be read: which records it holds is not known. It is set aside and never overwritten"})
		}
	}
	for _, ep := range s.q.epochs {
		for _, g := range ep.segs {
			out = append(out, s.checkSegment(ep, g)...)
		}
	}
	for _, h := range s.holes {
		out = append(out, Finding{File: "-", Epoch: h.Epoch, First: h.First, Last: h.Last,
			What: "no file holds these records and the cursor does not say that they were freed: they are lost, and the next opening declares it"})
	}
	return out
}

func (s *Survey) checkSegment(ep *epoch, g *segment) (out []Finding) {
	name := filepath.Base(g.name)
	b, same, err := s.content(g)
	if err != nil {
		return []Finding{{File: name, Length: int64(g.size), Epoch: ep.id, First: g.base, Last: g.last,
			What: fmt.Sprintf("cannot be read (%v): the card does not give these records now", err)}}
	}
	if !same {
		return nil // used again meanwhile
	}
	for _, off := range []int{0, g.size - sector} {
		if off+sector > len(b) {
			out = append(out, Finding{File: name, Offset: int64(len(b)), Length: int64(g.size - len(b)), Harmless: true,
				What: "the file is cut short: records that are known to have stood there are told beside this"})
			continue
		}
		if h, ok := decodeHeader(b[off:]); !ok || h.gen != g.gen {
			out = append(out, Finding{File: name, Offset: int64(off), Length: sector, Harmless: true,
				What: "this header is damaged or of another use of the file; the other one serves, nothing is lost"})
		}
	}
	c := *g // so that the content does not stay in RAM
	c.parse(b)
	// What no frame explains, and what is missing between the frames around it.
	end, next := sector, g.base
	stretch := func(to int, seq uint64) {
		from := end
		for from < to && b[from] == 0 {
			from++
		}
		for to > from && b[to-1] == 0 {
			to--
		}
		f := Finding{File: name, Offset: int64(from), Length: int64(to - from)}
		lost := seq > next
		switch {
		case lost && ep.freed.covers(next, seq-1):
			f.Harmless = true
			f.What = fmt.Sprintf("damaged: it held records %d to %d, which are freed, so nothing is lost", next, seq-1)
		case lost:
			f.Epoch, f.First, f.Last = ep.id, next, seq-1
			f.What = "damaged: these records are lost, and a gap record will say so when they are read"
			if g == ep.segs[len(ep.segs)-1] && c.torn(span{next, seq - 1}) {
				f.What = "missing from the last commit: these records are lost; most likely the power went while it was written, and it was never reported as done"
			}
		case from < to:
			f.Harmless = true
			f.What = "bytes of a commit that a power cut or a write error interrupted: nothing that was on flash is lost"
		default:
			return
		}
		next = max(next, seq)
		out = append(out, f)
	}
	scan(b, &g.header, sector, func(f frame) {
		if f.seq > g.last && f.kind.isRecord() {
			return
		}
		seq := f.seq
		if f.kind == stop {
			seq++
		}
		stretch(f.off, max(seq, next))
		end = f.off + frameHead + len(f.body)
		if f.kind.isRecord() {
			next = f.seq + 1
		}
	})
	if next <= g.last { // behind the last frame stale bytes are as good as zeros
		stretch(end, g.last+1)
	}
	return out
}

func (s *Survey) checkCursor() (out []Finding) {
	b, err := s.q.readFile(s.q.path(cursorName), 2*slotSize)
	if errors.Is(err, fs.ErrNotExist) && len(s.q.epochs) == 0 {
		return nil
	}
	good, bad := 0, 0
	for off := 0; off < 2*slotSize; off += slotSize {
		slot := b[min(off, len(b)):min(off+slotSize, len(b))]
		if _, ok := decodeCursor(slot); ok {
			good++
		} else if !zero(slot) {
			bad++
			out = append(out, Finding{File: cursorName, Offset: int64(off), Length: slotSize, Harmless: true,
				What: "this slot of the cursor is damaged or was being written: the other one serves, at worst records are sent again"})
		}
	}
	if good == 0 && len(s.q.epochs) > 0 {
		for i := range out {
			out[i].What = "this slot of the cursor is damaged"
		}
		out = append(out, Finding{File: cursorName, Harmless: true,
			What: "there is no cursor that can be read: what the hub has is not known, every record here will be sent again, none is lost"})
	}
	return out
}

// readFS lets the recovery read an fs.FS. It refuses whatever would change it.
type readFS struct{ fs.FS }

var errReadOnly = fmt.Errorf("a survey only reads: %w", errors.ErrUnsupported)

func (readFS) Lock(string) (io.Closer, error)     { return nil, errReadOnly }
func (readFS) Create(string) (File, error)        { return nil, errReadOnly }
func (readFS) Remove(string) error                { return errReadOnly }
func (readFS) SyncDir(string) error               { return errReadOnly }
func (readFS) Avail(string) (int64, int64, error) { return 0, 0, errReadOnly }
func (f readFS) List(string) ([]string, error) {
	des, err := fs.ReadDir(f.FS, ".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, de := range des {
		if de.Type().IsRegular() {
			names = append(names, de.Name())
		}
	}
	return names, nil
}

func (f readFS) Open(name string) (File, error) {
	file, err := f.FS.Open(filepath.ToSlash(name))
	if err != nil {
		return nil, err
	}
	r, ok := file.(io.ReaderAt)
	if !ok {
		return nil, errors.Join(fmt.Errorf("read %q: this file system cannot read at an offset", name), file.Close())
	}
	return readFile{file, r}, nil
}

type readFile struct {
	fs.File
	io.ReaderAt
}

func (readFile) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }
func (readFile) Sync() error                        { return errReadOnly }
func (f readFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
