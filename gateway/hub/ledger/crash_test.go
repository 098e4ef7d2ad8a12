package ledger

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/hub/seqs"
	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCrashAtEveryWrite cuts the power after any number of bytes that the
// ledger wrote, with anything behind them. What a board was told by then is on
// the disk; what is on the disk is what one Sync wrote, whole.
func TestCrashAtEveryWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "l.db")
	l := open(t, path)
	l.db.SetMaxOpenConns(1)
	if _, err := l.db.Exec("PRAGMA wal_autocheckpoint = 0"); err != nil { // so that every byte is appended to one file
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 5))
	type state struct {
		size int64 // of the log when Sync had returned
		row  Row
		told wire.CommitEpoch
	}
	size := func() int64 {
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	account := func(l *Ledger) Row {
		rows := mustAccount(t, l, Query{Site: "s", From: hour0, To: hour0.Add(3 * time.Hour)})
		if len(rows) == 0 {
			return Row{}
		}
		r := rows[0]
		r.KnownTo = time.Time{}
		return r
	}
	states := []state{{size: size()}}
	next := uint64(1)
	for range 12 {
		for range 1 + rng.IntN(40) {
			r := at(next, hour0.Add(time.Duration(next)*20*time.Second))
			switch rng.IntN(12) {
			case 0: // comes later, or never
			case 1:
				l.Settle("s", "g", wire.Record{Epoch: 9, Seq: next, Err: sql.ErrNoRows}, true)
			case 2:
				if next > 5 {
					r.Kind, r.Gap = wire.Gap, telemetry.Gap{LostEpoch: 9, First: next - 4, Last: next - 3, From: hour0, To: hour0.Add(time.Hour), Reason: "buffer full"}
				}
				fallthrough
			default:
				come(l, r)
			}
			next++
		}
		mustSync(t, l)
		c, _ := committed(t, l, 9)
		states = append(states, state{size(), account(l), c})
	}
	db, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	cuts := []int64{0, int64(len(log))}
	for _, s := range states {
		cuts = append(cuts, s.size, s.size-1, s.size+1)
	}
	for range 60 {
		cuts = append(cuts, rng.Int64N(int64(len(log))))
	}
	for i, n := range cuts {
		n = min(n, int64(len(log)))
		// The state that was synced, or the next whose commit stands before its
		// own padding.
		was, next1 := states[0], states[0]
		for k, s := range states {
			if s.size <= n {
				was, next1 = s, states[min(k+1, len(states)-1)]
			}
		}
		tail := make([]byte, rng.IntN(5000))
		if i%2 == 0 {
			for k := range tail {
				tail[k] = byte(rng.Uint32())
			}
		}
		again := filepath.Join(dir, fmt.Sprintf("cut-%d.db", i))
		if err := os.WriteFile(again, db, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(again+"-wal", append(log[:n:n], tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, again)
		got := account(l)
		if reflect.DeepEqual(got, next1.row) {
			was = next1
		}
		if got.Expected != was.row.Expected || !reflect.DeepEqual(got, was.row) && was.row.Expected > 0 {
			t.Fatalf("cut after %d bytes:\n got %+v\nwant %+v\n  or %+v", n, got, was.row, next1.row)
		}
		if was.told.Upto > 0 {
			if c, _ := committed(t, l, 9); !reflect.DeepEqual(c, was.told) {
				t.Fatalf("cut after %d bytes: told %+v, want %+v", n, c, was.told)
			}
		}
		come(l, at(next, hour0.Add(150*time.Minute))) // it goes on
		mustSync(t, l)
		l.Close()
	}
	t.Logf("%d cuts of %d bytes, seed 5", len(cuts), len(log))
}

// TestDiskFull: nothing is told while the disk is full, nothing forgotten.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l.db")
	l := open(t, path)
	l.db.SetMaxOpenConns(1)
	full := func(pages int) {
		if _, err := l.db.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	come(l, at(1, hour0))
	mustSync(t, l)
	full(1) // SQLite takes the present size
	next, refused := uint64(2), 0
	for i := range 4000 {
		come(l, at(next, hour0.Add(time.Duration(i)*7*time.Minute)))
		next += 2 // holes make the sets grow
		if i%50 == 0 && l.Sync() != nil {
			if refused++; refused == 3 {
				break
			}
		}
	}
	if refused < 3 {
		t.Fatal("the disk never got full")
	}
	before, _ := committed(t, l, 9)
	if before.Upto > 2 || len(before.Also) > 0 && before.Also[len(before.Also)-1][1] > next {
		t.Fatalf("told %+v", before)
	}
	durable := func() uint64 {
		l := open(t, path)
		defer l.Close()
		return one(t, l, 9).Stored
	}
	was, have := durable(), one(t, l, 9).Stored
	if was >= have {
		t.Fatalf("%d on disk, %d in memory: nothing was refused", was, have)
	}
	full(1 << 30)
	mustSync(t, l)
	if got := durable(); got != have {
		t.Fatalf("after there was room again: %d on disk, %d in memory", got, have)
	}
	if r := window(t, l, 0, 60*24*30); r.Stored != have || r.Missing != have-2 {
		t.Fatalf("%+v", r)
	}
}

// TestDamagedRows: a row that cannot be read costs what it said and no more.
func TestDamagedRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l.db")
	l := open(t, path)
	for s := uint64(1); s <= 180; s++ {
		come(l, at(s, hour0.Add(time.Duration(s-1)*time.Minute)))
	}
	l.Settle("s", "h", at(1, hour0), false)
	mustSync(t, l)
	n, _ := seqs.Place(hour0.UnixNano())
	for _, q := range []string{fmt.Sprintf("UPDATE hours SET data=x'00112233' WHERE gateway='g' AND hour=%d", n+1)} {
		if _, err := l.db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	l = open(t, path)
	// The hour is told by its neighbours.
	if r := window(t, l, 60, 120); r.Stored < 55 || r.Stored > 62 || r.Missing != 0 {
		t.Fatalf("%+v", r)
	}
	if r := window(t, l, 0, 180); r.Stored != 180+1 || r.Missing != 0 {
		t.Fatalf("%+v", r)
	}
	r := at(200, hour0.Add(90*time.Minute)) // written into it
	come(l, r)
	mustSync(t, l)
	var kept int
	if err := l.db.QueryRow("SELECT count(*) FROM damaged").Scan(&kept); err != nil || kept != 1 {
		t.Fatalf("%d rows set aside, %v", kept, err)
	}
	if r := window(t, l, 0, 180); r.Stored != 181+1 {
		t.Fatalf("%+v", r)
	}
	// An epoch: nothing is claimed of it, its board sends it again.
	if _, err := l.db.Exec("UPDATE epochs SET stored=x'0000' WHERE gateway='g'"); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l = open(t, path)
	come(l, at(201, hour0.Add(91*time.Minute)))
	l.Settle("s", "h", at(2, hour0), false)
	mustSync(t, l)
	if c, ok := committed(t, l, 9); !ok || c.Upto != 0 {
		t.Fatalf("told %+v of what is not known", c)
	}
	if r := window(t, l, 0, 180); r.Stored != 1+2 {
		t.Fatalf("%+v", r)
	}
}

// TestUpgrade takes a file of version 1, which knew no hours.
func TestUpgrade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{`CREATE TABLE epochs (
  site TEXT NOT NULL, gateway TEXT NOT NULL, epoch INTEGER NOT NULL,
  base INTEGER NOT NULL, top INTEGER NOT NULL, held INTEGER NOT NULL,
  ended INTEGER NOT NULL, last INTEGER NOT NULL, reason TEXT NOT NULL,
  dups INTEGER NOT NULL, first_time INTEGER NOT NULL, last_time INTEGER NOT NULL,
  stored BLOB NOT NULL, quarantined BLOB NOT NULL, lost BLOB NOT NULL,
  PRIMARY KEY (site, gateway, epoch))`, `CREATE TABLE gaps (
  site TEXT NOT NULL, gateway TEXT NOT NULL, epoch INTEGER NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL,
  from_time INTEGER NOT NULL, to_time INTEGER NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (site, gateway, epoch, first, last, reason))`, `PRAGMA user_version = 1`} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec("INSERT INTO epochs VALUES ('s','g',9,0,60,1,0,0,'',0,?,?,?,x'','')", hour0.UnixNano(), hour0.Add(59*time.Minute).UnixNano(), seqs.Set{{1, 60}}.Encode()); err != nil {
		t.Fatal(err)
	}
	db.Close()
	l := open(t, path)
	come(l, at(61, hour0.Add(60*time.Minute)))
	mustSync(t, l)
	for range 2 {
		if r := one(t, l, 9); r.Stored != 61 {
			t.Fatalf("%+v", r)
		}
		if c, _ := committed(t, l, 9); c.Upto != 61 {
			t.Fatalf("told %+v", c)
		}
		if r := window(t, l, 0, 61); r.Stored != 61 || r.Approximate != 60 {
			t.Fatalf("%+v", r)
		}
		l.Close()
		l = open(t, path)
	}
}

// TestSize holds what docs/ledger.md says of a year of 200 boards: here a board
// and a month, ten records a second in order.
func TestSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l.db")
	l := open(t, path)
	const hours = 720
	for h := range uint64(hours) {
		n, _ := seqs.Place(hour0.Add(time.Duration(h) * time.Hour).UnixNano())
		l.mu.Lock()
		e := l.epoch(key{Gateway{"heating-east", "boiler-house-1"}, 4837201123456})
		e.stored.Add(h*36000+1, h*36000+36000)
		e.top, e.dirty = h*36000+36000, true
		x := &hour{dirty: true}
		for m := range uint64(60) {
			x.Minutes[m].Add(h*36000+m*600+1, h*36000+m*600+600)
		}
		l.hours[hourKey{e.key, n}] = x
		l.mu.Unlock()
		if h%24 == 23 {
			mustSync(t, l)
		}
	}
	if len(l.hours) > maxHours {
		t.Errorf("%d hours in memory", len(l.hours))
	}
	start := time.Now()
	rows := mustAccount(t, l, Query{Site: "heating-east", From: hour0, To: hour0.Add(hours * time.Hour), ByHour: true})
	took := time.Since(start)
	if len(rows) < hours || rows[100].Stored != 36000 {
		t.Fatalf("%d rows, %+v", len(rows), rows[100])
	}
	l.Close() // brings everything into the one file
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	per := info.Size() / hours
	t.Logf("%d bytes an hour of a board; %d MB a year of 200 boards; a month by the hour in %s", per, per*8760*200>>20, took)
	if per > 500 {
		t.Errorf("%d bytes an hour", per)
	}
}
