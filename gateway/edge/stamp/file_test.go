package stamp

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

func TestFailingCard(t *testing.T) {
	w := newWorld(t, "adjtimex")
	w.ntp()
	w.file.fail = errors.New("the card is gone")
	var got []wire.Stamp
	for range 5 {
		w.seq++
		s, ok := w.k.Stamp(w.BootID(), w.epoch, w.seq, w.k.Poll("a", 0))
		if !ok || s.Clock != telemetry.ClockTrusted {
			t.Errorf("%+v, %v: an alarm must not wait for a card", s, ok)
		}
		w.truth += sec
		got = append(got, s)
	}
	w.file.fail = nil
	if err := w.k.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	for i, s := range got {
		x := &rec{epoch: w.epoch - 1, seq: uint64(i + 2), raw: wire.Stamp{Time: s.Time, Mono: s.Mono, Raw: true}}
		if again, ok := w.k.Stamp(w.BootID(), x.epoch, x.seq, x.raw); !ok || again != s {
			t.Errorf("was %+v, is %+v", s, again)
		}
	}
}

func TestDamage(t *testing.T) {
	w := newWorld(t, "adjtimex")
	w.ntp()
	w.polls(5, sec)
	w.all()
	w.polls(5, 3600*sec)
	w.all() // both slots are in use
	newest := int64(w.k.serial%2) * slotSize
	good := w.file
	for off := int64(0); off < 2048; off += 97 { // a torn write of the newest: the one before counts
		f := newMemFile()
		copy(f.live, good.live)
		f.live[newest+off] ^= 0x40
		if _, serial, damaged := load(f); serial < w.k.serial-1 || damaged {
			t.Errorf("byte %d: serial %d of %d, damaged %v", off, serial, w.k.serial, damaged)
		}
	}
	for i := range good.live { // both: nothing new is earlier than the last record
		if i%slotSize == 30 {
			good.live[i] ^= 1
		}
	}
	if _, serial, damaged := load(good); serial != 0 || !damaged {
		t.Errorf("serial %d, damaged %v", serial, damaged)
	}
	last := w.queue[len(w.queue)-1]
	w.start()
	w.polls(1, sec)
	w.all0(w.queue[len(w.queue)-1], last)
}

func (w *world) all0(x, before *rec) {
	w.t.Helper()
	if !w.publish(x) || x.published.Time <= before.published.Time {
		w.t.Errorf("%+v after %+v", x.published, before.published)
	}
}

func TestOpenFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "time")
	for i, before := range []func(){
		func() {},
		func() {},
		func() { _ = os.WriteFile(filepath.Join(dir, fileName), []byte("short"), 0o640) },
	} {
		before()
		f := OpenFile(dir)
		d, serial, damaged := load(f)
		if damaged || i == 1 && (serial != 1 || len(d.Boots) != 1) || i != 1 && serial != 0 {
			t.Errorf("opening %d: serial %d, damaged %v, %+v", i, serial, damaged, d)
		}
		slot, err := (&document{Boots: []*boot{{ID: "b"}}}).encode(1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(slot, slotSize); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "*.aside.*")); len(aside) != 1 {
		t.Errorf("set aside: %v", aside)
	}
}

// TestOpenFileRefused: a card that is full or refuses does not keep the board
// from starting, and is written to when it takes writes again.
func TestOpenFileRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "time")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // in the way of the folder
		t.Fatal(err)
	}
	f := OpenFile(dir)
	if _, serial, damaged := load(f); serial != 0 {
		t.Errorf("serial %d, damaged %v of a file that is not there", serial, damaged)
	}
	slot, err := (&document{Boots: []*boot{{ID: "b"}}}).encode(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(slot, slotSize); err == nil {
		t.Error("a write that cannot be was taken")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(slot, slotSize); err != nil {
		t.Error(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Error(err)
	}
	f = OpenFile(dir)
	defer f.Close()
	if d, serial, damaged := load(f); serial != 1 || len(d.Boots) != 1 || damaged {
		t.Errorf("serial %d, damaged %v, %+v", serial, damaged, d)
	}
}

// TestLargest: what may be kept at most fits in a slot.
func TestLargest(t *testing.T) {
	big := int64(-1 << 62)
	a := &anchor{big, big, big}
	id := "6b1e0000-0000-0000-0000-000000000000"
	var d document
	for range maxBoots {
		d.Boots = append(d.Boots, &boot{id, big, big, big, a, a, a, &big})
	}
	for range mostBases {
		d.Bases = append(d.Bases, &basis{1 << 53, 1 << 40, 1 << 40, big, 3, 199, true, 0})
	}
	for range residues {
		d.Residues = append(d.Residues, residue{N: 199, Boot: id, Off: big, From: big, Ceil: big})
	}
	if slot, err := d.encode(1); err != nil {
		t.Error(err)
	} else {
		t.Logf("%d of %d bytes", len(slot), slotSize)
	}
}

func FuzzDecode(f *testing.F) {
	slot, err := (&document{Boots: []*boot{{ID: "b"}}, Bases: []*basis{{Epoch: 1, First: 1, Last: 2}}}).encode(7)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slot)
	f.Add([]byte{})
	f.Add(make([]byte, 600))
	f.Fuzz(func(t *testing.T, slot []byte) {
		d, serial, _ := decode(slot)
		if serial == 0 && (len(d.Bases) > 0 || len(d.Boots) > 0) {
			t.Error("a slot that is not valid says something")
		}
	})
}
