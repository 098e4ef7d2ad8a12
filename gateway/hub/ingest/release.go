package ingest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"luquan/gateway/wire"
)

// Find returns the newest entries that f chooses, at most limit, newest first,
// and how many it chooses in all. A line torn by a power cut was never counted
// as kept and is left out.
func (q *Quarantine) Find(f Filter, limit int) (list []Entry, total int, err error) {
	names, err := q.names()
	if err != nil {
		return nil, 0, fmt.Errorf("quarantine: %w", err)
	}
	for _, name := range names {
		err := readEntries(filepath.Join(q.dir, name), func(e Entry) {
			if !f.match(&e) {
				return
			}
			total++
			if list = append(list, e); len(list) >= 2*limit+64 {
				list = append(list[:0], list[len(list)-limit:]...)
			}
		})
		if err != nil {
			return nil, 0, fmt.Errorf("quarantine: %w", err)
		}
	}
	list = list[max(0, len(list)-limit):]
	slices.Reverse(list)
	return list, total, nil
}

// readEntries calls do with each entry of a file, the oldest first. A file
// that was removed meanwhile has none.
func readEntries(path string, do func(Entry)) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return nil // without its newline it is torn
		}
		if err != nil {
			return err
		}
		var e Entry
		if json.Unmarshal(line, &e) == nil {
			do(e)
		}
	}
}

// Drop removes the entries that f chooses and says how many they were. The
// ledger goes on counting them as quarantined: that is what became of them.
func (q *Quarantine) Drop(f Filter) (n int, err error) {
	names, err := q.names()
	if err != nil {
		return 0, fmt.Errorf("quarantine: %w", err)
	}
	for _, name := range names {
		k, err := q.remove(name, func(e *Entry) bool { return f.match(e) })
		n += k
		if err != nil {
			return n, fmt.Errorf("quarantine: %d lines were dropped, then: %w", n, err)
		}
	}
	return n, nil
}

// remove takes entries out of a file, which it replaces in one step: after a
// power cut the file is the old or the new one.
func (q *Quarantine) remove(name string, gone func(*Entry) bool) (n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	path := filepath.Join(q.dir, name)
	var keep bytes.Buffer
	err = readEntries(path, func(e Entry) {
		if gone(&e) {
			n++
			return
		}
		enc := json.NewEncoder(&keep)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(e) // it was read from JSON
	})
	if err != nil || n == 0 {
		return 0, err
	}
	if q.file != nil && filepath.Base(q.file.Name()) == name {
		if err := q.drop(); err != nil {
			return 0, err
		}
	}
	if keep.Len() == 0 {
		err = os.Remove(path)
	} else {
		err = replace(path, keep.Bytes())
	}
	if err == nil {
		err = syncDir(q.dir)
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o640), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Retried says what became of entries that were offered to the store again.
type Retried struct {
	Tried  int `json:"tried"`
	Stored int `json:"stored"` // and out of quarantine
	Left   int `json:"left"`   // refused again
	// Reasons counts why, as the store or the contract says it now.
	Reasons map[string]int `json:"reasons,omitempty"`
}

// maxReasons bounds Retried.Reasons; what is beyond counts as "other reasons".
const maxReasons = 20

// Retry offers what f chooses to the store again, the oldest first: after the
// cause was mended, or with a newer program that can read it. What the store
// takes is settled in the ledger as stored and leaves the quarantine. It stops
// at the first error; what was done until then stays, and trying again repeats
// nothing.
func (c *Consumer) Retry(ctx context.Context, f Filter) (Retried, error) {
	out := Retried{Reasons: map[string]int{}}
	names, err := c.cfg.Quarantine.names()
	if err != nil {
		return out, fmt.Errorf("quarantine: %w", err)
	}
	for _, name := range names {
		var list []Entry
		if err := readEntries(filepath.Join(c.cfg.Quarantine.dir, name), func(e Entry) {
			if f.match(&e) {
				list = append(list, e)
			}
		}); err != nil {
			return out, fmt.Errorf("quarantine: %w", err)
		}
		for batch := range slices.Chunk(list, c.cfg.BatchLines) {
			if err := c.retry(ctx, name, batch, &out); err != nil {
				return out, fmt.Errorf("quarantine: %d lines were stored, then: %w", out.Stored, err)
			}
		}
	}
	c.log.Info("lines in quarantine were tried again", "site", f.Site, "gateway", f.Gateway, "id", f.ID, "tried", out.Tried, "stored", out.Stored)
	return out, nil
}

// retry offers a batch of one file.
func (c *Consumer) retry(ctx context.Context, file string, batch []Entry, out *Retried) error {
	refuse := func(reason string) {
		out.Left++
		if _, known := out.Reasons[reason]; !known && len(out.Reasons) >= maxReasons {
			reason = "other reasons"
		}
		out.Reasons[reason]++
	}
	out.Tried += len(batch)
	var rows []Row
	var from []int // of rows in batch
	var recs []wire.Record
	for i, e := range batch {
		r := wire.ReadLine(e.Site, e.Gateway, e.Epoch, e.Seq, e.bytes())
		if r.Err != nil {
			refuse(r.Err.Error())
			continue
		}
		rows, recs, from = append(rows, rowOf(r)), append(recs, r), append(from, i)
	}
	if len(rows) == 0 {
		return nil
	}
	rejected, err := c.cfg.Store.Write(ctx, rows)
	if err != nil {
		return err
	}
	stored := map[string]bool{}
	for k, r := range recs {
		if reason, no := rejected[k]; no {
			refuse(reason)
			continue
		}
		e := &batch[from[k]]
		c.cfg.Ledger.Settle(e.Site, e.Gateway, r, false)
		stored[e.ID()] = true
	}
	if err := c.cfg.Ledger.Sync(); err != nil {
		return err
	}
	if _, err := c.cfg.Quarantine.remove(file, func(e *Entry) bool { return stored[e.ID()] }); err != nil {
		return err
	}
	out.Stored += len(stored)
	c.count(func(s *Stats) { s.Stored += uint64(len(stored)) })
	return nil
}
