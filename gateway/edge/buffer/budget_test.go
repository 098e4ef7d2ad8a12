package buffer

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestFlashBudget plays a day of ten records of 100 bytes a second, freed by a
// hub that stores them, with commits every 5 s, and counts what goes through
// the file system: segments and their preparation, commits, cursor. The other
// loads are for docs/durability.md.
func TestFlashBudget(t *testing.T) {
	for _, load := range []struct {
		name         string
		records      int // a second
		size         int
		every        time.Duration
		hours        int
		bytes, syncs int64 // at most, in a day
	}{
		{"100 points at 10 s", 1, 300, 5 * time.Second, 24, 200e6, 20_000},
		{"10 records of 100 bytes a second", 10, 100, 5 * time.Second, 24, 200e6, 20_000},
		{"the same, commits every second", 10, 100, time.Second, 24, 500e6, 100_000},
		{"10,000 points a second", 40, 3000, 5 * time.Second, 1, 12e9, 500_000},
	} {
		t.Run(load.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemFS()
				q, err := Open(Options{Dir: "q", FS: m, CommitEvery: load.every, EncodeGap: encodeGap, EncodeEnd: encodeEnd})
				if err != nil {
					t.Fatal(err)
				}
				p := make([]byte, load.size)
				for range load.hours * 3600 {
					var last uint64
					for range load.records {
						if last, err = q.Append(Reading, p); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(time.Second)
					if err := q.Free(q.Epoch(), last-min(last, 5), nil); err != nil {
						t.Fatal(err)
					}
				}
				s := q.Stats()
				if err := q.Close(); err != nil {
					t.Fatal(err)
				}
				days := int64(24 / load.hours)
				t.Logf("a day: %.1f MB in %d syncs (%.1f MB in blocks of 4 KiB); played: %d commits, %d cursors",
					float64(m.writes*days)/1e6, m.syncs*days, float64(m.blocks*4096*days)/1e6, s.Commits, s.CursorWrites)
				if m.writes*days > load.bytes || m.syncs*days > load.syncs {
					t.Errorf("a day writes %d bytes in %d syncs; at most %d in %d", m.writes*days, m.syncs*days, load.bytes, load.syncs)
				}
				if s.Lost > 0 || s.Bytes > 24<<20 {
					t.Errorf("stats: %+v", s)
				}
			})
		})
	}
}

// TestRecoveryBudget opens a full buffer of 1 GiB: with a cursor that knows all
// but the newest segment, and with one that is as stale as can be.
func TestRecoveryBudget(t *testing.T) {
	for name, last := range map[string]uint64{"fresh cursor": 1023*9000 - 1, "stale cursor": 5} {
		t.Run(name, func(t *testing.T) {
			m := newMemFS()
			// Of 1024 segments all but the newest twenty exist as headers only: a file
			// system that holds 1 GiB would need as much memory here.
			const n = 1024
			for i := range n {
				h := header{size: segSize, gen: uint64(i + 1), epoch: 77, base: uint64(i*9000 + 1), salt: uint64(i), created: time.Unix(int64(i), 0)}
				node := &memNode{data: h.encode(), dirty: map[int]bool{}}
				if i >= n-20 {
					node.data = append(node.data, make([]byte, segSize-sector)...)
					for off, seq := sector, h.base; off+116 < segSize-sector && seq < h.base+9000; seq++ {
						off = putFrame(node.data, off, h.salt, seed(h.salt), Reading, seq, make([]byte, 96))
					}
				}
				node.durable = node.data
				name := fmt.Sprintf("q/seg-%06d.q", i+1)
				m.files[name], m.dir[name] = node, node
			}
			c := cursor{serial: 1, epochs: []cursorEpoch{{epoch: 77, last: last, current: true}}}
			node := &memNode{dirty: map[int]bool{}}
			node.set(append(make([]byte, slotSize), c.encode()...))
			m.files["q/"+cursorName], m.dir["q/"+cursorName] = node, node
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			q, err := Open(Options{Dir: "q", FS: m, Max: 2 << 30})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			m.mu.Lock()
			reads := m.reads
			m.mu.Unlock()
			runtime.GC()
			runtime.ReadMemStats(&after)
			held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
			t.Logf("opening 1 GiB in 1024 segments reads %.1f MiB and holds %.1f MiB", float64(reads)/(1<<20), float64(held)/(1<<20))
			if reads > 16<<20 || held > 32<<20 {
				t.Errorf("opening reads %d bytes and holds %d; at most 16 MiB and 32 MiB", reads, held)
			}
			if h := q.Holds(); len(h) != 2 || h[0].Last < 1023*9000+8000 {
				t.Errorf("holds %+v", h)
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	q := open(b, Options{Dir: "q", FS: newMemFS(), Max: 16 << 20})
	p := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		s, err := q.Append(Reading, p)
		if err != nil {
			b.Fatal(err)
		}
		if s%1000 == 0 {
			_ = q.Free(q.Epoch(), s, nil)
		}
	}
}

// BenchmarkTenThousandPoints is a second of 10,000 points, 40 records of 250
// points each, with its commit, on real files. It prints the share of one core
// (user and system, getrusage) that this takes when it is done every second.
func BenchmarkTenThousandPoints(b *testing.B) {
	q := open(b, Options{Dir: b.TempDir(), Max: 64 << 20, CommitEvery: time.Hour})
	p := make([]byte, 250*12)
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begun := cpu()
	for b.Loop() {
		var last uint64
		for range 40 {
			last, _ = q.Append(Reading, p)
		}
		if err := q.Commit(context.Background()); err != nil {
			b.Fatal(err)
		}
		_ = q.Free(q.Epoch(), last, nil)
	}
	b.ReportMetric(float64(cpu()-begun)/float64(b.N)/float64(time.Second)*100, "%core")
}

func BenchmarkCommit(b *testing.B) {
	q := open(b, Options{Dir: b.TempDir(), Max: 64 << 20, CommitEvery: time.Hour})
	p := make([]byte, 100)
	for b.Loop() {
		var last uint64
		for range 50 {
			last, _ = q.Append(Reading, p)
		}
		if err := q.Commit(context.Background()); err != nil {
			b.Fatal(err)
		}
		_ = q.Free(q.Epoch(), last, nil)
	}
}

// BenchmarkReadTail reads what was just appended, as the live lane does.
func BenchmarkReadTail(b *testing.B) {
	q := open(b, Options{Dir: "q", FS: newMemFS(), Max: 64 << 20})
	p := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		var first uint64
		for i := range 40 {
			s, _ := q.Append(Reading, p)
			if i == 0 {
				first = s
			}
		}
		if es, err := q.Read(q.Epoch(), first, 40, 0); err != nil || len(es) != 40 {
			b.Fatal(len(es), err)
		}
		_ = q.Free(q.Epoch(), first+39, nil)
	}
}

// BenchmarkReadBacklog reads a backlog from real files, 16 KiB at a time.
func BenchmarkReadBacklog(b *testing.B) {
	q := open(b, Options{Dir: b.TempDir(), Max: 64 << 20, CommitEvery: time.Hour})
	p := make([]byte, 100)
	var last uint64
	for range 200_000 {
		last, _ = q.Append(Reading, p)
	}
	if err := q.Commit(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(16 << 10)
	from := uint64(1)
	for b.Loop() {
		es, err := q.Read(q.Epoch(), from, 0, 16<<10)
		if err != nil || len(es) == 0 {
			b.Fatal(len(es), err)
		}
		if from = es[len(es)-1].Seq + 1; from > last-200 {
			from = 1
		}
	}
}
