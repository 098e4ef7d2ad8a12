package plant

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/telemetry"
)

// TestWhatThePlantShowsIsRead: random registers, read by each profile, shown
// anew by the plant's own encoder and read again, say the same; a device's "not
// available" is none. The two were written apart, so an error in one shows.
func TestWhatThePlantShowsIsRead(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	points, absent, sentinels, named := map[string]bool{}, 0, 0, 0
	lib, err := profile.Load(firmwareconfig.FS, "devices")
	if err != nil {
		t.Fatal(err)
	}
	var all []*profile.Profile
	for _, id := range lib.Names() {
		all = append(all, lib.Forms(id)...)
	}
	for k, prof := range all {
		form := fmt.Sprintf("%s, form %d,", prof.ID, k)
		for i := range prof.Points {
			pt := &prof.Points[i]
			what := form + " " + pt.Name
			points[prof.ID+" "+pt.Name] = true
			if pt.Class == telemetry.String {
				textIsRead(t, rng, what, pt)
				continue
			}
			numberIsRead(t, rng, what, pt)
			named += namesAreRead(t, rng, what, pt)
			for _, sentinel := range pt.Invalid {
				raw, ok := sentinelRaw(pt, sentinel.Raw)
				if !ok {
					t.Errorf("%s: the simulation cannot show %q", what, sentinel.Raw)
					continue
				}
				img := around(rng, pt)
				img.put(pt.Table, pt.Address, spread(pt, raw, int(pt.Type.Width()/16)))
				if _, q := decoded(&feed{point: pt}, img); q != sentinel.Quality {
					t.Errorf("%s: raw %q is %s, want %s", what, sentinel.Raw, q, sentinel.Quality)
				}
				sentinels++
			}
			if words, ok := notAvailable(pt); ok {
				absent++
				img := around(rng, pt)
				img.put(pt.Table, pt.Address, words)
				if _, q := decoded(&feed{point: pt}, img); q.HasValue() {
					t.Errorf("%s: what says that it is not available is %s", what, q)
				}
			}
		}
	}
	t.Logf("%d points; %d times one can be not available, %d sentinels, %d named values and bits", len(points), absent, sentinels, named)
}

// around puts what the point needs beside its own words: any scale, unit and
// sign of validity that the profile knows.
func around(rng *rand.Rand, pt *profile.Point) image {
	img := image{}
	if v := pt.Validity; v != nil {
		img[cell{v.Table, v.Address}] = uint16(v.Good[rng.IntN(len(v.Good))])
	}
	if s := pt.ScaleFrom; s != nil {
		n := map[string]int{"pow10": rng.IntN(7) - 3, "decimals": rng.IntN(4), "times": 1 + rng.IntN(100)}[s.Rule]
		img[cell{s.Table, s.Address}] = uint16(int16(n))
	}
	if u := pt.UnitFrom; u != nil {
		codes := slices.Sorted(maps.Keys(u.Units))
		img[cell{u.Table, u.Address}] = uint16(codes[rng.IntN(len(codes))])
	}
	return img
}

// randomWords are words that the point's encoding allows.
func randomWords(rng *rand.Rand, pt *profile.Point) []uint16 {
	words := make([]uint16, pt.Words)
	for i := range words {
		words[i] = uint16(rng.Uint32())
	}
	switch {
	case pt.Type == profile.F32:
		return spread(pt, uint64(math.Float32bits(float32(math.Round(rng.NormFloat64()*1e5)/64))), 2)
	case pt.Type == profile.F64:
		return spread(pt, math.Float64bits(math.Round(rng.NormFloat64()*1e7)/64), 4)
	case pt.Encoding == profile.OneHot:
		return spread(pt, 1<<rng.IntN(int(pt.Type.Width())), len(words))
	case pt.Encoding == profile.BCD || pt.Encoding == profile.Base10000:
		for i := range words {
			words[i] = order(pt, uint16(rng.IntN(10000)))
			if pt.Encoding == profile.BCD {
				n := rng.IntN(10000)
				words[i] = order(pt, uint16(n/1000<<12|n/100%10<<8|n/10%10<<4|n%10))
			}
		}
		return words
	case pt.Encoding == profile.IntPlusFraction:
		return append(spread(pt, uint64(rng.IntN(1e6)), 2), spread(pt, uint64(math.Float32bits(float32(rng.IntN(64))/64)), 2)...)
	case pt.Type.Width() == 64: // no float64 tells all of them apart
		return spread(pt, rng.Uint64()>>14, 4)
	}
	return words
}

func numberIsRead(t *testing.T, rng *rand.Rand, what string, pt *profile.Point) {
	t.Helper()
	read := 0
	for range 40 {
		img := around(rng, pt)
		for i, w := range randomWords(rng, pt) {
			c := cell{pt.Table, pt.Address + uint16(i)}
			if _, aux := img[c]; !aux { // a register may be its own unit or validity
				img[c] = w
			}
		}
		f := &feed{point: pt}
		v, q := decoded(f, img)
		if !q.HasValue() || v.IsZero() || pt.WrapsAt > 0 && v.Float() > float64(pt.WrapsAt)*math.Abs(pt.Scale) {
			continue // a sentinel by chance, or more than the counter counts to
		}
		f.constant = number(v)
		words, err := (&device{}).words(f, img, nil, overlay{})
		if err != nil {
			t.Errorf("%s: %v cannot be shown: %v", what, v, err)
			return
		}
		again := maps.Clone(img)
		again.put(pt.Table, pt.Address, words)
		w, q2 := decoded(f, again)
		if q2 != q || math.Abs(number(w)-number(v)) > 1e-9*max(1, math.Abs(number(v))) {
			t.Errorf("%s: registers %v say %v (%s), shown as %x they say %v (%s)", what, img, v, q, words, w, q2)
			return
		}
		read++
	}
	if read == 0 {
		t.Errorf("%s: no registers were found that say a value", what)
	}
}

// namesAreRead shows every value and every bit that the profile has a name for.
func namesAreRead(t *testing.T, rng *rand.Rand, what string, pt *profile.Point) (n int) {
	t.Helper()
	show := func(v int64) {
		img := around(rng, pt)
		if _, own := img[cell{pt.Table, pt.Address}]; own {
			return // what it says is given by what it stands beside
		}
		words, err := (&device{}).words(&feed{point: pt, constant: float64(v)}, img, nil, overlay{})
		if err != nil {
			t.Errorf("%s: %d cannot be shown: %v", what, v, err)
			return
		}
		img.put(pt.Table, pt.Address, words)
		if got, q := decoded(&feed{point: pt}, img); q != telemetry.Good || got.Int() != v {
			t.Errorf("%s: %d shown as %x is read as %v (%s)", what, v, words, got, q)
		}
		n++
	}
	for _, v := range slices.Sorted(maps.Keys(pt.Enum)) {
		show(v)
	}
	for _, bit := range slices.Sorted(maps.Keys(pt.Bits)) {
		show(1 << bit)
	}
	return n
}

func number(v telemetry.Value) float64 {
	if v.Class() == telemetry.Int {
		return float64(v.Int())
	}
	return v.Float()
}

func textIsRead(t *testing.T, rng *rand.Rand, what string, pt *profile.Point) {
	t.Helper()
	f := &feed{point: pt}
	want := ""
	at := time.Unix(1_700_000_000+rng.Int64N(200_000_000), 0).UTC()
	switch pt.Encoding {
	case profile.HHMM:
		f.constant, want = float64(at.Hour()*100+at.Minute()), at.Format("15:04")
	case profile.HiLoVersion:
		f.constant, want = 3<<8|17, "3.17"
	case profile.UnixTime:
		f.constant, want = float64(at.Unix()), at.Format(time.RFC3339)
	case profile.Days2000:
		n := rng.IntN(20_000)
		f.constant, want = float64(n), time.Date(2000, 1, 1+n, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
	case profile.DateTime6, profile.DateTime3:
		f.constant, want = float64(at.Unix()), at.Format("2006-01-02T15:04:05")
	default:
		want = "Ab-9"[:min(4, pt.Length)]
		f.text = want
	}
	img := around(rng, pt)
	words, err := (&device{}).words(f, img, nil, overlay{})
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	img.put(pt.Table, pt.Address, words)
	if v, q := decoded(f, img); q != telemetry.Good || v.String() != want {
		t.Errorf("%s: %q shown as %x is read as %q (%s)", what, want, words, v, q)
	}
}
