package buffer

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenSegment is a segment of one reading, one gap, one event and one end
// record in two commits, with everything random fixed.
func goldenSegment() []byte {
	now := time.Unix(0, 1763850000123456789)
	s := newSegment(&epoch{id: 4837201, label: "boot=6b1e cfg=9f86d081"}, 1200, 4<<10, now)
	s.gen, s.salt = 7, 0x0123456789ABCDEF
	s.seed = seed(s.salt)
	s.prevEpoch, s.prevLast, s.prevClean = 99, 1234, true
	copy(s.buf, s.header.encode())
	copy(s.buf[s.size-sector:], s.header.encode())
	s.put(Reading, 1200, now, []byte("heat_meter flow_temp=84.2"))
	l := Lost{99, 10, 20, now.Add(-time.Hour), now, reasonFull}
	s.put(Gap, 1201, now, l.encode(), []byte("gateway_gap"))
	s.pos, s.open = alignUp(s.pos), false
	s.put(Event, 1202, now.Add(time.Second), []byte("alarm"))
	e := newEpochEnd(99, 1234, true, "boot=5a0d")
	s.put(End, 1203, now.Add(time.Second), e.encode(), []byte("gateway_epoch"))
	s.put(stop, 1203, now.Add(time.Second))
	return s.buf
}

func goldenCursor() []byte {
	c := cursor{serial: 5, written: time.Unix(0, 1763850000123456789), epochs: []cursorEpoch{
		{epoch: 99, last: 1234, freed: freed{1000, []span{{1010, 1020}, {1100, 1199}}}},
		{epoch: 4837201, last: 1203, freed: freed{1200, nil}, current: true},
	}, free: []uint64{3, 4, 6}}
	return c.encode()
}

// TestGolden holds the bytes of FORMAT.md: a released format never changes.
func TestGolden(t *testing.T) {
	for name, b := range map[string][]byte{"segment.hex": goldenSegment(), "cursor.hex": goldenCursor()} {
		file := filepath.Join("testdata", name)
		got := []byte(hex.Dump(b))
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs: the format changed; a new version number and a reader of the old one are needed", name)
		}
	}
}

func TestDecodeGolden(t *testing.T) {
	b := goldenSegment()
	h, ok := decodeHeader(b)
	if !ok || h.gen != 7 || h.epoch != 4837201 || h.base != 1200 || h.label != "boot=6b1e cfg=9f86d081" || !h.prevClean || h.prevLast != 1234 {
		t.Fatalf("header: %+v %v", h, ok)
	}
	var got []string
	bad := scan(b, &h, sector, func(f frame) {
		if f.kind != mark {
			got = append(got, f.kind.String()+" "+string(payloadOf(f.kind, f.body)))
		} else {
			got = append(got, "mark")
		}
	})
	want := []string{"mark", "reading heat_meter flow_temp=84.2", "gap gateway_gap", "mark", "event alarm", "end gateway_epoch", "stop "}
	if !reflect.DeepEqual(got, want) || bad != 0 {
		t.Errorf("frames: %q, %d bad", got, bad)
	}
	if last, clean := h.lastIn(b); last != 1203 || !clean {
		t.Errorf("last %d, clean %v", last, clean)
	}
	c, ok := decodeCursor(goldenCursor())
	if !ok || c.serial != 5 || len(c.epochs) != 2 || !c.epochs[1].current || len(c.free) != 3 ||
		!reflect.DeepEqual(c.epochs[0].freed, freed{1000, []span{{1010, 1020}, {1100, 1199}}}) {
		t.Errorf("cursor: %+v %v", c, ok)
	}
}

// TestStale shows that the frames of a file's last use are never taken for
// those of its next.
func TestStale(t *testing.T) {
	b := goldenSegment()
	h, _ := decodeHeader(b)
	for i := range 1000 {
		h.salt = random64()
		h.base = 1 + uint64(i)*2
		scan(b, &h, sector, func(f frame) { t.Fatalf("salt %x: frame %d at %d", h.salt, f.seq, f.off) })
	}
}

func TestFreedSet(t *testing.T) {
	var f freed
	model := map[uint64]bool{}
	r := seeded(t)
	for range 3000 {
		a := 1 + r.Uint64N(400)
		b := a + r.Uint64N(6)
		f.add(a, b)
		for s := a; s <= b; s++ {
			model[s] = true
		}
		if len(model) > 380 {
			f, model = freed{}, map[uint64]bool{}
		}
		lo := 1 + r.Uint64N(400)
		hi := lo + r.Uint64N(50)
		var n uint64
		for s := lo; s <= hi; s++ {
			if f.has(s) != model[s] {
				t.Fatalf("%d: has %v, want %v in %+v", s, f.has(s), model[s], f)
			}
			if !model[s] {
				n++
			}
		}
		var held uint64
		for _, h := range f.held(lo, hi) {
			held += h[1] - h[0] + 1
			for s := h[0]; s <= h[1]; s++ {
				if model[s] {
					t.Fatalf("held says %v, but %d is freed: %+v", h, s, f)
				}
			}
		}
		if held != n || f.count(lo, hi) != n || f.covers(lo, hi) != (n == 0) {
			t.Fatalf("[%d,%d]: held %d, count %d, covers %v; want %d in %+v", lo, hi, held, f.count(lo, hi), f.covers(lo, hi), n, f)
		}
		for i, s := range f.also {
			if s[0] > s[1] || s[0] <= f.upto+1 || i > 0 && s[0] <= f.also[i-1][1]+1 {
				t.Fatalf("not in order: %+v", f)
			}
		}
	}
}

// TestCursorFits keeps what does not fit out, and stays valid. The oldest and
// the current epoch, of which segments are freed and used again, stay in.
func TestCursorFits(t *testing.T) {
	var c cursor
	for e := range uint64(5000) {
		ce := cursorEpoch{epoch: e + 1, last: 1000}
		for i := range e % 7 {
			ce.freed.add(10+i*10, 12+i*10)
		}
		c.epochs = append(c.epochs, ce)
	}
	c.free = []uint64{1, 2, 3}
	b := c.encode()
	d, ok := decodeCursor(b)
	if len(b) > slotSize || !ok || len(d.epochs) < 500 || d.epochs[0].epoch != 1 || d.epochs[len(d.epochs)-1].epoch != 5000 {
		t.Fatalf("%d bytes, %v, %d epochs", len(b), ok, len(d.epochs))
	}
	// Spans of old epochs do not crowd out whole ones.
	c = cursor{}
	for e := range uint64(10) {
		ce := cursorEpoch{epoch: e + 1, last: 1 << 20, current: e == 9}
		ce.freed.upto = e + 1
		for i := range uint64(maxRanges) {
			ce.freed.add(100+i*10, 102+i*10)
		}
		c.epochs = append(c.epochs, ce)
	}
	d, ok = decodeCursor(c.encode())
	if n := len(d.epochs); !ok || n != 10 || d.epochs[9].freed.upto != 10 || !d.epochs[9].current || len(d.epochs[0].freed.also) != maxRanges {
		t.Fatalf("%v, %d epochs of 10", ok, n)
	}
}

// FuzzScan feeds whole files to the decoders: no panic, no frame outside the
// file, and what is decoded encodes to the same bytes.
func FuzzScan(f *testing.F) {
	f.Add(goldenSegment())
	f.Add(goldenCursor())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := decodeCursor(b); ok {
			d, again := decodeCursor(c.encode())
			if !again || len(d.epochs) > len(c.epochs) {
				t.Fatal("a decoded cursor does not encode")
			}
		}
		h, ok := decodeHeader(b)
		if !ok {
			// Fuzzing cannot guess a CRC: judge the frames under a good header.
			h = header{size: max(4*sector, alignUp(len(b))+sector), epoch: 1, base: 1, salt: 0x0123456789ABCDEF}
		} else if got := h.encode(); len(b) >= 8 && !bytes.Equal(got[12:72], b[12:72]) {
			t.Fatal("a decoded header does not encode to the same")
		}
		prev := uint64(0)
		scan(b, &h, 0, func(fr frame) {
			if fr.off+frameHead+len(fr.body) > len(b) {
				t.Fatal("frame outside the file")
			}
			if fr.kind.isRecord() {
				if fr.seq <= prev {
					t.Fatal("numbers do not rise")
				}
				prev = fr.seq
			}
			out := make([]byte, fr.off+frameHead+len(fr.body))
			putFrame(out, fr.off, h.salt, seed(h.salt), fr.kind, fr.seq, fr.body)
			if !bytes.Equal(out[fr.off:], b[fr.off:len(out)]) {
				t.Fatal("frame does not encode to the same")
			}
			_ = payloadOf(fr.kind, fr.body)
		})
	})
}

// FuzzNotes feeds the bodies of gap and end records to their decoders.
func FuzzNotes(f *testing.F) {
	l := Lost{Epoch: 1, First: 2, Last: 3, Reason: reasonFull}
	e := newEpochEnd(1, 2, true, "label")
	f.Add(l.encode())
	f.Add(e.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, p, ok := decodeLost(b); ok && !bytes.Equal(append(l.encode(), p...), b) {
			t.Fatalf("%+v does not encode to the same", l)
		}
		if e, p, ok := decodeEnd(b); ok && len(e.encode())+len(p) != len(b) {
			t.Fatalf("%+v does not encode to the same", e)
		}
	})
}
