package bus

import (
	"testing"

	"luquan/drivers/drivertest"
)

func FuzzParseRTU(f *testing.F) {
	f.Add(byte(3), byte(1), uint16(2), []byte{3, 1, 1, 0xFF, 0, 0})
	f.Add(byte(3), byte(3), uint16(1), drivertest.AppendCRC([]byte{3, 3, 2, 0, 9}))
	f.Add(byte(3), byte(4), uint16(125), drivertest.AppendCRC([]byte{3, 0x84, 2}))
	f.Fuzz(func(t *testing.T, unit, fc byte, q uint16, b []byte) {
		r := request{unit: unit, function: 1 + fc%4, quantity: 1 + q%125, adu: make([]byte, 8)}
		v, n, why := parseRTU(r, b)
		switch v {
		case answer:
			if b[0] != unit || n > len(b) || drivertest.CRC(b[:n]) != 0 || (b[1] == r.function) != (n == 5+r.dataBytes() && b[1] < 0x80) {
				t.Fatalf("accepted % x for %+v", b, r)
			}
		case foreign:
			if n < 5 || n > len(b) || drivertest.CRC(b[:n]) != 0 {
				t.Fatalf("foreign % x", b)
			}
		case damaged:
			if why == "" {
				t.Fatal("damaged without a word why")
			}
		}
		soundFrame(b)
	})
}

func FuzzParseMBAP(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 5, 1, 3, 2, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := request{unit: 1, function: 3, quantity: 1, adu: []byte{0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1}}
		v, n, _ := parseMBAP(b)
		if v != answer {
			return
		}
		if n > len(b) || n < 9 {
			t.Fatalf("answer of %d in %d bytes", n, len(b))
		}
		if checkPDU(r, b[6], b[mbapHeader:n]) == "" && b[7] == 3 && n != 11 {
			t.Fatalf("accepted % x", b)
		}
	})
}
