package plant

import (
	"encoding/binary"
	"slices"

	"luquan/drivers/modbus/profile"
)

// units are the unit addresses of a bus. Several devices may have one, where a
// profile shares it; a device whose profile reads points under addresses of
// its own beside the first stands at each of them, as a face of it.
type units map[byte][]*device

// add puts d at its addresses; faces makes them.
func (u units) add(d *device) {
	u[d.unit] = append(u[d.unit], d)
	for _, f := range d.faces {
		u[f.unit] = append(u[f.unit], f)
	}
}

// taken returns a device that keeps d from one of its addresses, nil when none does.
func (u units) taken(d *device) *device {
	for _, face := range append([]*device{d}, d.faces...) {
		for _, other := range u[face.unit] {
			if !d.profile.SharesUnit && !other.profile.SharesUnit {
				return other
			}
		}
	}
	return nil
}

// device returns the one that a request is for: of several at the address the
// one with a register in what is asked for, the first where none has; nil when
// there is no such address.
func (u units) device(unit byte, pdu []byte) *device {
	all := u[unit]
	if len(all) == 0 {
		return nil
	}
	if len(all) > 1 && len(pdu) == 5 {
		table, first, n := profile.Table(pdu[0]), int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
		for _, d := range all {
			if d.within(table, first, n) {
				return d
			}
		}
	}
	return all[0]
}

// within reports whether d has a register among the n from first.
func (d *device) within(table profile.Table, first, n int) bool {
	overlaps := func(t profile.Table, at, words int) bool { return t == table && at < first+n && first < at+words }
	return slices.ContainsFunc(d.feeds, func(f feed) bool {
		return f.point.UnitOffset == d.offset && overlaps(f.point.Table, int(f.point.Address), int(f.point.Words))
	}) || slices.ContainsFunc(d.settings, func(s setting) bool { return overlaps(tables[s.Table], int(s.Address), 1) })
}

// split makes the faces of a device whose feeds are loaded.
func (d *device) split() {
	for _, f := range d.feeds {
		offset := f.point.UnitOffset
		if offset == 0 || slices.ContainsFunc(d.faces, func(x *device) bool { return x.offset == offset }) {
			continue
		}
		d.faces = append(d.faces, &device{name: d.name, bus: d.bus, unit: d.unit + offset, offset: offset, profile: d.profile, feeds: d.feeds, hole: d.hole})
	}
}

// face returns the part of d that a point stands in.
func (d *device) face(p *profile.Point) *device {
	for _, f := range d.faces {
		if f.offset == p.UnitOffset {
			return f
		}
	}
	return d
}
