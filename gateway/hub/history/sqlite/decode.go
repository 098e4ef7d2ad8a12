package sqlite

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"luquan/gateway/telemetry"
)

// reader takes a buffer apart; once something is missing, bad stays true.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) u8() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	x := r.b[0]
	r.b = r.b[1:]
	return x
}

func (r *reader) uvarint() uint64 {
	x, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return x
}

func (r *reader) varint() int64 {
	x, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return x
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	x := r.b[:n]
	r.b = r.b[n:]
	return x
}

func (r *reader) u64() uint64 {
	if x := r.bytes(8); x != nil {
		return binary.LittleEndian.Uint64(x)
	}
	return 0
}

// decodeSummary checks a block and returns its summary and its packed body.
func decodeSummary(b []byte) (m summary, packed bool, body []byte, err error) {
	if len(b) < 7 || b[0] != version || binary.LittleEndian.Uint32(b[1:]) != crc32.Checksum(b[5:], castagnoli) {
		return m, false, nil, errBlock
	}
	r := reader{b: b[7:]}
	m.class = telemetry.Class(b[5])
	n, values := r.uvarint(), r.uvarint()
	m.worst = telemetry.Quality(r.u8())
	m.first = r.varint()
	m.last = m.first + int64(r.uvarint())
	if r.bad || n == 0 || n > 1<<40 || values > n || m.last < m.first || m.class > telemetry.String || (values > 0 && m.class == 0) {
		return m, false, nil, errBlock
	}
	m.n, m.values = int(n), int(values)
	if values > 0 && m.class != telemetry.String {
		m.min, m.max = math.Float64frombits(r.u64()), math.Float64frombits(r.u64())
		m.sum, m.final = math.Float64frombits(r.u64()), math.Float64frombits(r.u64())
	}
	if r.bad {
		return m, false, nil, errBlock
	}
	return m, b[6]&flagZstd != 0, r.b, nil
}

// decodeBlock unpacks a block. Whatever the input, it neither panics nor
// takes more than a small multiple of its size or of maxRaw, the larger.
func decodeBlock(b []byte) (series, error) {
	m, packed, body, err := decodeSummary(b)
	if err != nil {
		return series{}, err
	}
	if packed {
		if body, err = decoder().DecodeAll(body, nil); err != nil {
			return series{}, errBlock
		}
	}
	r := &reader{b: body}
	if m.n > len(body) { // a sample takes a byte at least
		return series{}, errBlock
	}
	s := series{class: m.class, samples: make([]sample, m.n)}
	if !s.readStamps(r, m) || !s.readQualities(r, m) || !s.readValues(r, m) || r.bad || len(r.b) != 0 {
		return series{}, errBlock
	}
	return s, nil
}

func (s *series) readStamps(r *reader, m summary) bool {
	unit := r.u8()
	if unit > 9 {
		return false
	}
	scale := int64(pow10[unit])
	ts, delta := m.first, int64(0)
	s.samples[0].ts = ts
	for i := 1; i < len(s.samples); i++ {
		delta += r.varint()
		if delta <= 0 || delta > (math.MaxInt64-max(ts, 0))/scale {
			return false
		}
		ts += delta * scale
		s.samples[i].ts = ts
	}
	return !r.bad && ts == m.last
}

func (s *series) readQualities(r *reader, m summary) bool {
	values := 0
	for i := 0; i < len(s.samples); {
		run, q, has := r.uvarint(), telemetry.Quality(r.u8()), r.u8()
		if r.bad || run == 0 || run > uint64(len(s.samples)-i) || has > 1 {
			return false
		}
		for range run {
			s.samples[i].q, s.samples[i].has = q, has == 1
			i++
		}
		if has == 1 {
			values += int(run)
		}
	}
	return values == m.values
}

func (s *series) readValues(r *reader, m summary) bool {
	if m.values == 0 {
		return true
	}
	vals := make([]uint64, m.values)
	mode := r.u8()
	switch {
	case mode == modeDec && s.class == telemetry.Float:
		e := r.u8()
		if e > maxDec {
			return false
		}
		x := int64(0)
		for i := range vals {
			x += r.varint()
			vals[i] = math.Float64bits(unscaled(x, int(e)))
		}
	case mode == modeF32 && s.class == telemetry.Float:
		readPlanes(r, vals, 4)
		for i, v := range vals {
			vals[i] = math.Float64bits(float64(math.Float32frombits(uint32(v))))
		}
	case mode == modeF64 && s.class == telemetry.Float:
		readPlanes(r, vals, 8)
	case mode == modeInt && s.class == telemetry.Int:
		x := int64(0)
		for i := range vals {
			x += r.varint()
			vals[i] = uint64(x)
		}
	case mode == modeStr && s.class == telemetry.String:
		if !s.readTexts(r, vals) {
			return false
		}
	default:
		return false
	}
	if r.bad {
		return false
	}
	for i, k := 0, 0; i < len(s.samples); i++ {
		if s.samples[i].has {
			s.samples[i].bits = vals[k]
			k++
		}
	}
	return true
}

func readPlanes(r *reader, vals []uint64, width int) {
	planes := r.bytes(uint64(width * len(vals)))
	if r.bad {
		return
	}
	prev := uint64(0)
	for i := range vals {
		var x uint64
		for p := range width {
			x = x<<8 | uint64(planes[p*len(vals)+i])
		}
		prev ^= x
		vals[i] = prev
	}
}

func (s *series) readTexts(r *reader, vals []uint64) bool {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		return false
	}
	for range n {
		s.texts = append(s.texts, string(r.bytes(r.uvarint())))
	}
	for i := 0; i < len(vals); {
		run, at := r.uvarint(), r.uvarint()
		if r.bad || run == 0 || run > uint64(len(vals)-i) || at >= n {
			return false
		}
		for range run {
			vals[i] = at
			i++
		}
	}
	return true
}

// hotSample is one sample of a hot row.
type hotSample struct {
	point int64
	ts    int64
	q     telemetry.Quality
	v     telemetry.Value
}

func encodeHot(xs []hotSample) []byte {
	var b []byte
	ts := int64(0)
	for _, x := range xs {
		b = binary.AppendUvarint(b, uint64(x.point))
		b = binary.AppendVarint(b, x.ts-ts)
		ts = x.ts
		b = append(b, byte(x.q), byte(x.v.Class()))
		switch x.v.Class() {
		case telemetry.Float:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x.v.Float()))
		case telemetry.Int:
			b = binary.AppendVarint(b, x.v.Int())
		case telemetry.String:
			b = append(binary.AppendUvarint(b, uint64(len(x.v.Str()))), x.v.Str()...)
		}
	}
	flags := byte(0)
	if len(b) > 256 {
		if packed, ok := pack(b); ok {
			flags, b = flagZstd, packed
		}
	}
	out := append(make([]byte, 0, len(b)+6), version, 0, 0, 0, 0, flags)
	out = append(out, b...)
	putCRC(out)
	return out
}

func decodeHot(b []byte) ([]hotSample, error) {
	if len(b) < 6 || b[0] != version || binary.LittleEndian.Uint32(b[1:]) != crc32.Checksum(b[5:], castagnoli) {
		return nil, errBlock
	}
	body := b[6:]
	if b[5]&flagZstd != 0 {
		var err error
		if body, err = decoder().DecodeAll(body, nil); err != nil {
			return nil, errBlock
		}
	}
	r := &reader{b: body}
	var out []hotSample
	ts := int64(0)
	for len(r.b) > 0 {
		x := hotSample{point: int64(r.uvarint())}
		ts += r.varint()
		x.ts = ts
		x.q = telemetry.Quality(r.u8())
		switch c := telemetry.Class(r.u8()); c {
		case 0:
		case telemetry.Float:
			f := math.Float64frombits(r.u64())
			if x.v = telemetry.FloatValue(f); x.v.IsZero() {
				return nil, errBlock
			}
		case telemetry.Int:
			x.v = telemetry.IntValue(r.varint())
		case telemetry.String:
			x.v = telemetry.StringValue(string(r.bytes(r.uvarint())))
		default:
			return nil, errBlock
		}
		if r.bad || x.point <= 0 || x.ts < 0 {
			return nil, errBlock
		}
		out = append(out, x)
	}
	return out, nil
}
