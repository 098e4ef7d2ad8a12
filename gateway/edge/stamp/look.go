package stamp

import (
	"fmt"
	"io/fs"

	"luquan/gateway/wire"
)

// Known are the stamps that are decided, as they stand on flash: of a board
// that runs beside, or of a dead one's card.
type Known struct{ k Keeper }

// Look reads the bases below fsys, the root of a buffer's directory. There may
// be none: a board of an earlier version, or one that never published.
func Look(fsys fs.FS) (*Known, error) {
	n := &Known{}
	b, err := fs.ReadFile(fsys, "time/"+fileName)
	if err != nil {
		return n, fmt.Errorf("read the bases of stamps: %w", err)
	}
	d, serial, _ := decode(b[:min(len(b), slotSize)])
	if len(b) > slotSize {
		if x, s, _ := decode(b[slotSize:]); s > serial {
			d, serial = x, s
		}
	}
	n.k.bases = d.Bases
	if serial == 0 && len(b) > 0 {
		return n, fmt.Errorf("read the bases of stamps: neither slot of time/%s can be used", fileName)
	}
	return n, nil
}

// Of returns the stamp under which a record was published, if it was, or will
// be. Not ok: it has none yet, s says what the clocks showed.
func (n *Known) Of(epoch, seq uint64, s wire.Stamp) (out wire.Stamp, ok bool) {
	if !s.Raw {
		return s, true
	}
	b := n.k.find(epoch, seq, s)
	if b == nil {
		return s, false
	}
	return wire.Stamp{Time: formula(int64(s.Mono), b.Off, b.Res), Clock: b.Code, Mono: s.Mono}, true
}
