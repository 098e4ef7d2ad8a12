package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"luquan/gateway/telemetry"
)

// MaxPayload is the most bytes of a payload, before and after decompression.
const MaxPayload = 1 << 20

// Header is the first line of a payload.
type Header struct {
	Epoch   uint64 // of all its records, 1 to MaxEpoch
	First   uint64 // seq of the first record; the others follow without holes
	Count   int    // records
	Lane    What   // Live or Backfill
	Session string // of the connection, as in State
	Step    int    // rises when the stamps' clock moves over 1 s
	Sent    int64  // nanoseconds since 1970 by the stamps' clock
	Boot    string // boot id of the records
	Cfg     string // cfg of the records, eight hex digits
}

// Record is one line of a payload and what it says.
type Record struct {
	// Epoch and Seq are the record's place by the header: also of a line that
	// could not be read.
	Epoch, Seq uint64
	// Line is the line without its newline. It aliases the buffer of the
	// payload and must not be changed.
	Line []byte
	// Kind is 0 when Err is not nil.
	Kind Kind
	// Sample has site, gateway, epoch, seq, clock and time of every kind of
	// record, the rest of a Reading only.
	Sample telemetry.Record
	Gap    telemetry.Gap      // of Kind Gap
	End    telemetry.EpochEnd // of Kind EpochEnd
	// Err tells why the line breaks the contract; then nothing else of it
	// but Epoch, Seq and Line may be used.
	Err error
}

// Payload is a decoded payload.
type Payload struct {
	Header  Header
	Records []Record // Header.Count of them, in the order of Seq
}

// Encode returns the payload of h and lines, each line without its newline.
// h.Count must be len(lines). The payload is one zstd frame when compress is
// set; publish it then on the topic with Zstd.
func Encode(h Header, lines [][]byte, compress bool) ([]byte, error) {
	if h.Count != len(lines) {
		return nil, fmt.Errorf("wire: header counts %d records, there are %d", h.Count, len(lines))
	}
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	n := 256
	for _, l := range lines {
		n += len(l) + 1
	}
	b := h.append(make([]byte, 0, n))
	for _, l := range lines {
		b = append(append(b, l...), '\n')
	}
	if len(b) > MaxPayload {
		return nil, fmt.Errorf("wire: payload of %d bytes is over %d", len(b), MaxPayload)
	}
	if !compress {
		return b, nil
	}
	return encoder.EncodeAll(b, make([]byte, 0, len(b)/3)), nil
}

// Decode reads a payload that came on topic t, which must be Live or Backfill.
// An error means that the payload as a whole cannot be trusted (its header,
// its size, its count of lines); a line that breaks the contract by itself
// has its Record.Err and spoils no other. Whatever the input, Decode uses a
// small multiple of MaxPayload and does not panic. Records alias payload when
// it is not compressed.
func Decode(t Topic, payload []byte) (Payload, error) {
	if t.What != Live && t.What != Backfill {
		return Payload{}, fmt.Errorf("wire: topic %s carries no records", t)
	}
	if len(payload) > MaxPayload {
		return Payload{}, fmt.Errorf("wire: payload of %d bytes is over %d", len(payload), MaxPayload)
	}
	if t.Zstd {
		var err error
		if payload, err = decoder.DecodeAll(payload, nil); err != nil {
			return Payload{}, fmt.Errorf("wire: decompress payload: %w", err)
		}
		if len(payload) > MaxPayload {
			return Payload{}, fmt.Errorf("wire: payload decompresses to over %d bytes", MaxPayload)
		}
	}
	first, body, _ := bytes.Cut(payload, []byte("\n"))
	h, err := parseHeader(string(first))
	if err != nil {
		return Payload{}, fmt.Errorf("wire: %w", err)
	}
	if h.Lane != t.What {
		return Payload{}, fmt.Errorf("wire: header says lane %s on topic %s", h.Lane, t)
	}
	lines := bytes.Count(body, []byte("\n"))
	if len(body) > 0 && body[len(body)-1] != '\n' {
		lines++
	}
	if lines != h.Count {
		return Payload{}, fmt.Errorf("wire: header counts %d records, there are %d lines", h.Count, lines)
	}
	p := Payload{Header: h, Records: make([]Record, 0, h.Count)}
	for i := range h.Count {
		var line []byte
		line, body, _ = bytes.Cut(body, []byte("\n"))
		p.Records = append(p.Records, ReadLine(t.Site, t.Gateway, h.Epoch, h.First+uint64(i), line))
	}
	return p, nil
}

// ReadLine reads one line of a board's payload, whose place by the header is
// epoch and seq. A line that breaks the contract has its Record.Err. The Record
// aliases line.
func ReadLine(site, gateway string, epoch, seq uint64, line []byte) Record {
	r := Record{Epoch: epoch, Seq: seq, Line: line}
	if err := parseLine(&r, site, gateway); err != nil {
		return Record{Epoch: epoch, Seq: seq, Line: line, Err: err}
	}
	return r
}

func (h Header) append(b []byte) []byte {
	b = append(b, "#luquan 1 epoch="...)
	b = strconv.AppendUint(b, h.Epoch, 10)
	b = strconv.AppendUint(append(b, " first="...), h.First, 10)
	b = strconv.AppendInt(append(b, " count="...), int64(h.Count), 10)
	b = append(append(b, " lane="...), h.Lane...)
	b = append(append(b, " session="...), h.Session...)
	b = strconv.AppendInt(append(b, " step="...), int64(h.Step), 10)
	b = strconv.AppendInt(append(b, " sent="...), h.Sent, 10)
	b = append(append(b, " boot="...), h.Boot...)
	b = append(append(b, " cfg="...), h.Cfg...)
	return append(b, '\n')
}

func (h Header) check() error {
	switch {
	case h.Epoch == 0 || h.Epoch > MaxEpoch:
		return fmt.Errorf("epoch %d is not 1 to 2^53-1", h.Epoch)
	case h.Count < 1 || h.Count > MaxPayload:
		return fmt.Errorf("count %d is out of range", h.Count)
	case h.First == 0 || h.First > math.MaxInt64-uint64(h.Count):
		return fmt.Errorf("first %d is out of range", h.First)
	case h.Lane != Live && h.Lane != Backfill:
		return fmt.Errorf("lane %q is not live or backfill", short(string(h.Lane)))
	case !validToken(h.Session):
		return fmt.Errorf("session %q is not 1 to 64 of [A-Za-z0-9-]", short(h.Session))
	case h.Step < 0:
		return fmt.Errorf("step %d is negative", h.Step)
	case !validToken(h.Boot):
		return fmt.Errorf("boot %q is not 1 to 64 of [A-Za-z0-9-]", short(h.Boot))
	case !validCfg(h.Cfg):
		return fmt.Errorf("cfg %q is not eight hex digits", short(h.Cfg))
	}
	return nil
}

// parseHeader reads the first line. Keys it does not know are of a later
// version and are skipped; every known one must be there once.
func parseHeader(line string) (Header, error) {
	rest, ok := strings.CutPrefix(line, "#luquan ")
	if !ok {
		return Header{}, fmt.Errorf("payload does not begin with #luquan but %q", short(line))
	}
	if len(line) > 1024 {
		return Header{}, fmt.Errorf("header of %d bytes is over 1024", len(line))
	}
	words := strings.Split(rest, " ")
	if words[0] != "1" {
		return Header{}, fmt.Errorf("payload version %q is not 1: a newer hub is needed", short(words[0]))
	}
	var h Header
	var errs []error
	seen := map[string]bool{}
	num := func(s string, bits int) int64 {
		i, err := strconv.ParseInt(s, 10, bits)
		if err != nil {
			errs = append(errs, fmt.Errorf("header: %q is no integer", short(s)))
		}
		return i
	}
	for _, w := range words[1:] {
		k, v, ok := strings.Cut(w, "=")
		if !ok || seen[k] {
			return Header{}, fmt.Errorf("header: %q is not key=value or comes twice", short(w))
		}
		seen[k] = true
		switch k {
		case "epoch":
			h.Epoch = uint64(num(v, 64))
		case "first":
			h.First = uint64(num(v, 64))
		case "count":
			h.Count = int(num(v, 32))
		case "lane":
			h.Lane = What(v)
		case "session":
			h.Session = v
		case "step":
			h.Step = int(num(v, 32))
		case "sent":
			h.Sent = num(v, 64)
		case "boot":
			h.Boot = v
		case "cfg":
			h.Cfg = v
		}
	}
	for _, k := range []string{"step", "sent"} { // the others have no valid zero
		if !seen[k] {
			errs = append(errs, fmt.Errorf("header: %s is missing", k))
		}
	}
	if err := h.check(); err != nil {
		errs = append(errs, fmt.Errorf("header: %w", err))
	}
	return h, errors.Join(errs...)
}

// validToken reports whether s may be a session or boot id.
func validToken(s string) bool {
	return s != "" && len(s) <= 64 &&
		strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// encoder and decoder hold no state between calls: EncodeAll and DecodeAll may
// run from several goroutines. Both are complete before main: the channels in
// them must not belong to the first test bubble (testing/synctest) that comes by.
var encoder, decoder = newCodec()

func newCodec() (*zstd.Encoder, *zstd.Decoder) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(MaxPayload))
	if err != nil {
		panic("BUG: wire: " + err.Error())
	}
	e.EncodeAll([]byte("#"), nil) // makes what the encoder makes at its first use
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxPayload), zstd.WithDecoderMaxWindow(MaxPayload))
	if err != nil {
		panic("BUG: wire: " + err.Error())
	}
	return e, d
}
