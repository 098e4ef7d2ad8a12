package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"luquan/gateway/edge/buffer"
	"luquan/gateway/edge/stamp"
	"luquan/gateway/edge/uplink"
	"luquan/gateway/hub/ingest"
	"luquan/gateway/wire"
)

// card is the buffer directory of a dead board, read and never written.
type card struct {
	dir    string
	survey *buffer.Survey
	stamps *stamp.Keeper
	total  uint64 // records, about
}

// openCard reads what is on the card. The stamps are decided by the board's own
// code, from what it had put on flash, as if it had started once more, with the
// right time: only what it would write is kept in memory.
func openCard(dir string) (*card, error) {
	survey, err := buffer.Look(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	if len(survey.Files) == 0 {
		return nil, fmt.Errorf("%s holds no segment of a buffer (seg-*.q); name the folder that buffer.dir of the board's gateway.yaml names", dir)
	}
	bases, err := os.ReadFile(filepath.Join(dir, "time", "stamps.q"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the bases of the stamps: %w", err)
	}
	keeper, err := stamp.New(stamp.Config{
		Clock: &hubClock{boot: "import-" + rand.Text(), began: time.Now()},
		File:  &memoryFile{bases}, Trust: []string{"adjtimex"},
	})
	if err != nil {
		return nil, err
	}
	c := &card{dir: dir, survey: survey, stamps: keeper}
	var past []stamp.Past
	for _, e := range survey.Epochs {
		var last *buffer.Record
		err := survey.Records(e.Epoch, 1, func(r buffer.Record) error {
			c.total++
			last = &r
			return nil
		})
		if err != nil {
			return nil, err
		}
		if last == nil {
			continue
		}
		if _, s, err := wire.StampOf(last.Payload); err == nil {
			past = append(past, stamp.Past{Boot: uplink.Boot(e.Label), Epoch: e.Epoch, Seq: last.Seq, Stamp: s})
		}
	}
	keeper.Start(past)
	keeper.Connected()  // hold is 0: nothing waits for a better time, there will be none
	_, _ = keeper.Now() // and this is the time by which a boot without one is placed
	return c, nil
}

const (
	cardLines = 500
	cardBytes = 512 << 10
)

// importCard sends every record of the card.
func importCard(ctx context.Context, c *card, send func(ctx context.Context, topic string, payload []byte, records int) (ingest.Imported, error), progress func(read, of uint64)) (*importReport, error) {
	report := &importReport{Dir: c.dir, Epochs: []epochReport{}, Findings: []string{}}
	for _, f := range c.survey.Check() {
		switch {
		case f.Last > 0: // what it says of a gap record is for a board that lives
			report.Damaged += f.Last - f.First + 1
			report.Findings = append(report.Findings, fmt.Sprintf("%s at %d: damaged: epoch %d, seq %d to %d cannot be read; the ledger keeps them as missing",
				f.File, f.Offset, f.Epoch, f.First, f.Last))
		case !f.Harmless:
			report.Findings = append(report.Findings, fmt.Sprintf("%s at %d: %s", f.File, f.Offset, f.What))
		}
	}
	for _, e := range c.survey.Epochs {
		b := batch{report: report, send: send, ctx: ctx, label: e.Label}
		err := c.survey.Records(e.Epoch, 1, func(r buffer.Record) error {
			report.Read++
			progress(report.Read, c.total)
			return b.add(c, r)
		})
		if err == nil {
			err = b.flush()
		}
		if err != nil {
			return report, err
		}
		if b.epoch.Read > 0 {
			report.Epochs = append(report.Epochs, b.epoch)
		}
	}
	return report, nil
}

// batch gathers the lines of one payload: of one board and epoch, without holes.
type batch struct {
	ctx    context.Context
	report *importReport
	send   func(ctx context.Context, topic string, payload []byte, records int) (ingest.Imported, error)
	label  string
	epoch  epochReport

	site, gateway string
	first         uint64
	lines         [][]byte
	size          int
}

func (b *batch) add(c *card, r buffer.Record) error {
	_, s, err := wire.StampOf(r.Payload)
	if err != nil {
		b.report.Unreadable++
		return nil
	}
	s, ok := c.stamps.Stamp(uplink.Boot(b.label), r.Epoch, r.Seq, s)
	if !ok {
		b.report.Untimed++
		return nil
	}
	line, err := wire.AppendLineAt(nil, r.Payload, s, r.Epoch, r.Seq)
	if err != nil {
		b.report.Unreadable++
		return nil
	}
	site, gateway := board(line)
	if len(b.lines) > 0 && (site != b.site || gateway != b.gateway || r.Seq != b.first+uint64(len(b.lines)) ||
		len(b.lines) == cardLines || b.size+len(line) > cardBytes) {
		if err := b.flush(); err != nil {
			return err
		}
	}
	if len(b.lines) == 0 {
		b.site, b.gateway, b.first, b.size = site, gateway, r.Seq, 0
	}
	b.lines = append(b.lines, line)
	b.size += len(line) + 1
	e := &b.epoch
	if e.Read == 0 {
		*e = epochReport{Site: site, Gateway: gateway, Epoch: r.Epoch, Boot: uplink.Boot(b.label), First: r.Seq}
	}
	at := time.Unix(0, s.Time).UTC()
	if e.From.IsZero() || at.Before(e.From) {
		e.From = at
	}
	if at.After(e.To) {
		e.To = at
	}
	e.Last = r.Seq
	e.Read++
	return nil
}

// board tells whose record a line is: it says so itself, in its first two tags.
func board(line []byte) (site, gateway string) {
	tag := func(name string) string {
		_, rest, _ := bytes.Cut(line, []byte(","+name+"="))
		return string(rest[:max(0, bytes.IndexAny(rest, ", "))])
	}
	return tag("site"), tag("gateway")
}

func (b *batch) cfg() string {
	_, cfg, _ := strings.Cut(b.label, "cfg=")
	if cfg, _, _ = strings.Cut(cfg, " "); len(cfg) == 8 {
		return cfg
	}
	return "00000000"
}

// flush sends what was gathered.
func (b *batch) flush() error {
	if len(b.lines) == 0 {
		return nil
	}
	payload, err := wire.Encode(wire.Header{
		Epoch: b.epoch.Epoch, First: b.first, Count: len(b.lines), Lane: wire.Backfill,
		Session: "import", Sent: time.Now().UnixNano(), Boot: b.epoch.Boot, Cfg: b.cfg(),
	}, b.lines, true)
	if err != nil {
		return err
	}
	topic := wire.Topic{Site: b.site, Gateway: b.gateway, What: wire.Backfill, Zstd: true}.String()
	got, err := b.send(b.ctx, topic, payload, len(b.lines))
	if err != nil {
		return err
	}
	b.report.New += uint64(got.New)
	b.report.Known += uint64(got.Known)
	b.report.Quarantined += uint64(got.Quarantined)
	b.epoch.New += uint64(got.New)
	b.lines = b.lines[:0]
	return nil
}

// hubClock is the hub's own clock, taken for right: that of a boot that never was.
type hubClock struct {
	boot  string
	began time.Time
}

func (c *hubClock) Now() time.Time           { return time.Now() }
func (c *hubClock) SinceBoot() time.Duration { return time.Since(c.began) + time.Second }
func (c *hubClock) BootID() string           { return c.boot }
func (c *hubClock) Synchronised() bool       { return true }
func (c *hubClock) RTC() (time.Time, bool)   { return time.Time{}, false }

// memoryFile is what the board had put on flash, and what would be written to it.
type memoryFile struct{ data []byte }

func (m *memoryFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memoryFile) WriteAt(p []byte, off int64) (int, error) {
	if grow := off + int64(len(p)) - int64(len(m.data)); grow > 0 {
		m.data = append(m.data, make([]byte, grow)...)
	}
	return copy(m.data[off:], p), nil
}

func (m *memoryFile) Sync() error  { return nil }
func (m *memoryFile) Close() error { return nil }
