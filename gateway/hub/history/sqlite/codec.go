package sqlite

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"luquan/gateway/telemetry"
)

// FORMAT.md describes what is written here.

const (
	version   = 1
	flagZstd  = 1
	maxRaw    = 64 << 20 // bytes; what is larger is not packed, so that no frame unpacks to more
	modeDec   = 1
	modeF32   = 2
	modeF64   = 3
	modeInt   = 4
	modeStr   = 5
	maxDec    = 9
	exactInts = 1 << 53
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errBlock   = errors.New("damaged block")
	pow10      = [maxDec + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}
)

// sample is one reading of one point. bits is a float's bits, an int, or the
// index of a text in its series.
type sample struct {
	ts   int64
	bits uint64
	q    telemetry.Quality
	has  bool // carries a value
}

// series is the samples of one point in one hour.
type series struct {
	class   telemetry.Class // 0: none carries a value
	samples []sample
	texts   []string
	index   map[string]uint64 // of texts; nil in decoded series
}

// add appends a sample; v is the zero Value when it carries none.
func (s *series) add(ts int64, q telemetry.Quality, v telemetry.Value) {
	x := sample{ts: ts, q: q, has: !v.IsZero()}
	if x.has {
		s.class = v.Class()
	}
	switch v.Class() {
	case telemetry.Float:
		x.bits = math.Float64bits(v.Float())
	case telemetry.Int:
		x.bits = uint64(v.Int())
	case telemetry.String:
		i, ok := s.index[v.Str()]
		if !ok {
			if s.index == nil {
				s.index = map[string]uint64{}
			}
			i = uint64(len(s.texts))
			s.texts = append(s.texts, v.Str())
			s.index[v.Str()] = i
		}
		x.bits = i
	}
	s.samples = append(s.samples, x)
}

func (s *series) value(x sample) telemetry.Value {
	switch {
	case !x.has:
		return telemetry.Value{}
	case s.class == telemetry.Float:
		return telemetry.FloatValue(math.Float64frombits(x.bits))
	case s.class == telemetry.Int:
		return telemetry.IntValue(int64(x.bits))
	}
	return telemetry.StringValue(s.texts[x.bits])
}

// number is the value of a float or int sample.
func (s *series) number(x sample) float64 {
	if s.class == telemetry.Float {
		return math.Float64frombits(x.bits)
	}
	return float64(int64(x.bits))
}

// merge returns the samples of all parts in order of time, one a stamp; of
// two with one stamp that of the later part counts.
func merge(parts ...series) series {
	if len(parts) == 1 && sorted(parts[0].samples) {
		return parts[0]
	}
	var out series
	for _, p := range parts {
		for _, x := range p.samples {
			out.add(x.ts, x.q, p.value(x))
		}
	}
	slices.SortStableFunc(out.samples, func(a, b sample) int {
		switch {
		case a.ts < b.ts:
			return -1
		case a.ts > b.ts:
			return 1
		}
		return 0
	})
	kept := out.samples[:0]
	for i, x := range out.samples {
		if i+1 < len(out.samples) && out.samples[i+1].ts == x.ts {
			continue
		}
		kept = append(kept, x)
	}
	out.samples = kept
	return out
}

func sorted(xs []sample) bool {
	for i := 1; i < len(xs); i++ {
		if xs[i].ts <= xs[i-1].ts {
			return false
		}
	}
	return true
}

// summary is what a block tells without being unpacked.
type summary struct {
	class                telemetry.Class
	n, values            int
	worst                telemetry.Quality
	first, last          int64 // stamps
	min, max, sum, final float64
}

func (s *series) summarize() summary {
	m := summary{class: s.class, n: len(s.samples), first: s.samples[0].ts, last: s.samples[len(s.samples)-1].ts}
	for _, x := range s.samples {
		m.worst = m.worst.Worst(x.q)
		if !x.has {
			continue
		}
		m.values++
		if s.class == telemetry.String {
			continue
		}
		v := s.number(x)
		if m.values == 1 {
			m.min, m.max = v, v
		}
		m.min, m.max, m.sum, m.final = min(m.min, v), max(m.max, v), m.sum+v, v
	}
	return m
}

// encodeBlock packs a series that merge returned and that is not empty.
func encodeBlock(s series) []byte {
	m := s.summarize()
	b := []byte{version, 0, 0, 0, 0, byte(s.class), 0}
	b = binary.AppendUvarint(b, uint64(m.n))
	b = binary.AppendUvarint(b, uint64(m.values))
	b = append(b, byte(m.worst))
	b = binary.AppendVarint(b, m.first)
	b = binary.AppendUvarint(b, uint64(m.last-m.first))
	if m.values > 0 && s.class != telemetry.String {
		for _, f := range []float64{m.min, m.max, m.sum, m.final} {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
		}
	}
	body := appendStamps(nil, s.samples)
	body = appendQualities(body, s.samples)
	body = appendValues(body, s)
	if packed, ok := pack(body); ok {
		b[6] |= flagZstd
		body = packed
	}
	b = append(b, body...)
	putCRC(b)
	return b
}

func appendStamps(b []byte, xs []sample) []byte {
	unit, scale := byte(9), int64(1e9)
	for _, x := range xs[1:] {
		for (x.ts-xs[0].ts)%scale != 0 {
			unit, scale = unit-1, scale/10
		}
	}
	b = append(b, unit)
	var delta int64
	for i := 1; i < len(xs); i++ {
		d := (xs[i].ts - xs[i-1].ts) / scale
		b = binary.AppendVarint(b, d-delta)
		delta = d
	}
	return b
}

func appendQualities(b []byte, xs []sample) []byte {
	for i := 0; i < len(xs); {
		j := i
		for j < len(xs) && xs[j].q == xs[i].q && xs[j].has == xs[i].has {
			j++
		}
		has := byte(0)
		if xs[i].has {
			has = 1
		}
		b = append(binary.AppendUvarint(b, uint64(j-i)), byte(xs[i].q), has)
		i = j
	}
	return b
}

func appendValues(b []byte, s series) []byte {
	vals := make([]uint64, 0, len(s.samples))
	for _, x := range s.samples {
		if x.has {
			vals = append(vals, x.bits)
		}
	}
	if len(vals) == 0 {
		return b
	}
	switch s.class {
	case telemetry.Int:
		b = append(b, modeInt)
		prev := int64(0)
		for _, v := range vals {
			b = binary.AppendVarint(b, int64(v)-prev)
			prev = int64(v)
		}
	case telemetry.String:
		b = binary.AppendUvarint(append(b, modeStr), uint64(len(s.texts)))
		for _, t := range s.texts {
			b = append(binary.AppendUvarint(b, uint64(len(t))), t...)
		}
		for i := 0; i < len(vals); {
			j := i
			for j < len(vals) && vals[j] == vals[i] {
				j++
			}
			b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(j-i)), vals[i])
			i = j
		}
	default:
		b = appendFloats(b, vals)
	}
	return b
}

func appendFloats(b []byte, vals []uint64) []byte {
	if e, ok := exponent(vals); ok {
		b = append(b, modeDec, byte(e))
		prev := int64(0)
		for _, v := range vals {
			x, _ := scaled(v, e)
			b = binary.AppendVarint(b, x-prev)
			prev = x
		}
		return b
	}
	width, mode := 4, byte(modeF32)
	for _, v := range vals {
		f := math.Float64frombits(v)
		if math.Float64bits(float64(float32(f))) != v {
			width, mode = 8, modeF64
			break
		}
	}
	b = append(b, mode)
	at := len(b)
	b = append(b, make([]byte, width*len(vals))...)
	prev := uint64(0)
	for i, v := range vals {
		if mode == modeF32 {
			v = uint64(math.Float32bits(float32(math.Float64frombits(v))))
		}
		for p, x := 0, v^prev; p < width; p++ {
			b[at+p*len(vals)+i] = byte(x >> (8 * (width - 1 - p)))
		}
		prev = v
	}
	return b
}

// exponent finds the least power of ten that makes every value an integer
// from which it comes back bit for bit.
func exponent(vals []uint64) (int, bool) {
	e := 0
	for _, v := range vals {
		for {
			if _, ok := scaled(v, e); ok {
				break
			}
			if e++; e > maxDec {
				return 0, false
			}
		}
	}
	for _, v := range vals {
		if _, ok := scaled(v, e); !ok {
			return 0, false
		}
	}
	return e, true
}

func scaled(bits uint64, e int) (int64, bool) {
	r := math.Round(math.Float64frombits(bits) * pow10[e])
	if !(math.Abs(r) < exactInts) { // also of NaN
		return 0, false
	}
	return int64(r), math.Float64bits(unscaled(int64(r), e)) == bits
}

func unscaled(x int64, e int) float64 { return float64(x) / pow10[e] }

var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		panic("BUG: sqlite: " + err.Error())
	}
	return e
})

var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(4), zstd.WithDecoderMaxMemory(maxRaw))
	if err != nil {
		panic("BUG: sqlite: " + err.Error())
	}
	return d
})

// pack returns b as a zstd frame, if that is worth it.
func pack(b []byte) ([]byte, bool) {
	if len(b) > maxRaw {
		return nil, false
	}
	packed := encoder().EncodeAll(b, nil)
	return packed, len(packed) < len(b)
}

// putCRC fills in the checksum of a block or hot row.
func putCRC(b []byte) { binary.LittleEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli)) }
