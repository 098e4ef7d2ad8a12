package stamp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"luquan/gateway/wire"
)

// Config is what a Keeper works with. Clock and File are required.
type Config struct {
	Clock Clock
	File  File // closed by Close
	// Trust lists the sources that count: adjtimex, rtc, hub.
	Trust []string
	// Hold is how long after connecting records wait for a trusted time.
	Hold time.Duration
	// Build is when this program was made: no honest clock is earlier.
	Build  time.Time
	Logger *slog.Logger // nil: silent
}

// Keeper decides stamps. Make it with New; then Start, once the queue is open.
// Its methods may be called from any goroutine.
type Keeper struct {
	cfg Config
	log *slog.Logger

	io     sync.Mutex // one write at a time; taken before mu
	serial uint64     // of the newest slot, guarded by io

	mu       sync.Mutex // guards what follows
	version  uint64     // rises with every change that must be on flash
	durable  uint64     // the version that is
	fullTold time.Time
	retryAt  time.Time // a failing card is not asked before
	fresh    bool      // the first run of this boot
	now      *boot     // this one
	boots    []*boot   // oldest first, now the last
	bases    []*basis  // in the order in which they were made
	residues [residues]*residue
	lowest   int64            // spent by all residues that have no owner
	forced   int64            // offset that counts on because all residues are spent
	last     int64            // the stamp given last
	floor    int64            // the last stamp on flash
	lastMono map[string]int64 // by series
	began    int64            // mono when this run began
	saved    int64            // mono of the last write
	hub      estimate
	linked   bool
	linkedAt int64
	expired  bool // hold has run out
	rtcAt    int64
	rtcGood  bool
	rtcLess  int64 // the battery clock less mono
}

// New reads what is on flash. Poll may be called from then on. A file that is
// damaged is no error: it is told, and nothing new is earlier than what Start tells.
func New(cfg Config) (*Keeper, error) {
	if cfg.Clock == nil || cfg.File == nil {
		return nil, errors.New("stamp: Clock and File are required")
	}
	k := &Keeper{cfg: cfg, log: logger(cfg.Logger), lastMono: map[string]int64{}}
	d, serial, damaged := load(cfg.File)
	if damaged {
		k.log.Error("the bases of stamps are damaged; records that were published may come again with other stamps")
	}
	k.serial, k.lowest, k.last, k.floor = serial, d.Floor, d.Last, d.Last
	k.boots, k.bases = d.Boots, d.Bases
	for _, b := range k.bases {
		b.high = b.Last
	}
	for i := range d.Residues {
		k.residues[d.Residues[i].N] = &d.Residues[i]
	}
	m, wall := k.read()
	k.began = m
	id := cfg.Clock.BootID()
	if i := slices.IndexFunc(k.boots, func(b *boot) bool { return b.ID == id }); i >= 0 {
		k.now = k.boots[i]
		return k, nil
	}
	k.now = &boot{ID: id, Start: max(wall, cfg.Build.UnixNano(), k.floor) - m, First: m, Last: m}
	k.boots, k.fresh = append(k.boots, k.now), true
	k.change()
	return k, nil
}

// Past is a boot's last record in the queue.
type Past struct {
	Boot       string
	Epoch, Seq uint64
	Stamp      wire.Stamp // as stored
}

// Start takes what the queue holds of earlier openings, oldest first, and puts
// this boot on flash.
func (k *Keeper) Start(past []Past) {
	k.mu.Lock()
	for i, p := range past {
		t := p.Stamp.Time
		if p.Stamp.Raw {
			b := k.boot(p.Boot, p.Stamp)
			b.Last = max(b.Last, int64(p.Stamp.Mono))
			off := b.Start
			if o, ok := b.known(); ok {
				off = o
			}
			if x := k.find(p.Epoch, p.Seq, p.Stamp); x != nil {
				off = x.Off
			}
			t = off + int64(p.Stamp.Mono)
		} else if t > k.lowest {
			k.lowest = t // stamps of an earlier version have any last three digits
			k.change()
		}
		if i == len(past)-1 && t > k.floor {
			k.floor, k.rtcAt = t, 0 // the battery clock is judged anew
		}
	}
	if b := k.now; k.fresh && b.Start+b.First <= k.floor {
		b.Start = k.floor + grid - b.First
	}
	k.mu.Unlock()
	k.Flush()
}

// Run keeps an eye on the clocks, so that what is learnt while nothing is
// polled or published is on flash too, and forgets what nobody needs: held gives
// the first record of each epoch in the queue, and the boots of all.
func (k *Keeper) Run(ctx context.Context, held func() (first map[uint64]uint64, boots []string)) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		k.watch()
		if n%60 == 59 {
			k.forget(held())
		}
	}
}

// watch looks at the clocks and puts what is new on flash.
func (k *Keeper) watch() {
	k.mu.Lock()
	m, wall := k.read()
	k.judge(m, wall)
	if time.Duration(m-k.saved) >= ahead {
		k.change() // how far the sources reached
	}
	k.mu.Unlock()
	k.Flush()
}

// forget drops the bases of which no record is held, by each epoch's first, and
// the boots none of whose epochs is.
func (k *Keeper) forget(first map[uint64]uint64, boots []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bases = slices.DeleteFunc(k.bases, func(b *basis) bool {
		f, held := first[b.Epoch]
		return !held || b.Last < f
	})
	k.boots = slices.DeleteFunc(k.boots, func(b *boot) bool { return b != k.now && !slices.Contains(boots, b.ID) })
}

// change notes that there is something to be put on flash. The caller holds mu.
func (k *Keeper) change() { k.version++ }

// retryEvery is how often a card that refuses is tried again.
const retryEvery = 10 * time.Second

// Flush puts everything on flash that is not there and waits for it. A card
// that refuses is told, and tried again every 10 s; what is in memory counts
// until it works.
func (k *Keeper) Flush() { k.flush(false) }

func (k *Keeper) flush(force bool) {
	k.io.Lock()
	defer k.io.Unlock()
	k.mu.Lock()
	if k.version == k.durable || !force && time.Now().Before(k.retryAt) {
		k.mu.Unlock()
		return
	}
	version := k.version
	k.saved = int64(k.cfg.Clock.SinceBoot())
	k.now.Last = max(k.now.Last, k.saved)
	if n := len(k.boots) - maxBoots; n > 0 { // the oldest go by their records' own clock then
		k.boots = slices.Delete(k.boots, 0, n)
	}
	d := document{Floor: k.lowest, Last: k.last, Boots: k.boots, Bases: k.bases}
	for _, r := range k.residues {
		if r != nil {
			d.Residues = append(d.Residues, *r)
		}
	}
	slot, err := d.encode(k.serial + 1)
	k.mu.Unlock()
	if err == nil {
		_, err = k.cfg.File.WriteAt(slot, int64((k.serial+1)%2)*slotSize)
	}
	if err == nil {
		err = k.cfg.File.Sync()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.serial++ // after an error the same slot is tried again: the other is the good one
		k.durable = version
		return
	}
	k.retryAt = time.Now().Add(retryEvery)
	k.log.Error("the bases of stamps cannot be put on flash; after a power cut records may come again with other stamps", "error", err)
}

// Close flushes and closes the file.
func (k *Keeper) Close() error {
	k.flush(true)
	if err := k.cfg.File.Close(); err != nil {
		return fmt.Errorf("stamp: close: %w", err)
	}
	return nil
}

func (k *Keeper) trust(source string) bool { return slices.Contains(k.cfg.Trust, source) }
