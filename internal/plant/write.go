package plant

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Write is a request that could change a plant.
type Write struct {
	Bus      string
	Unit     byte // 0 on a serial line means every device
	Function byte
	PDU      []byte // from the function code on
}

// String says what came in one sentence.
func (w Write) String() string {
	return fmt.Sprintf("a request that could change the plant came to unit %d of bus %s: function %d, bytes % x; only reads are promised",
		w.Unit, w.Bus, w.Function, w.PDU)
}

// WriteAttempts returns how many requests came that could change a plant. None
// changed anything.
func (p *Plant) WriteAttempts() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writes
}

// observe tells of a request that could change a plant.
func (p *Plant) observe(bus string, unit byte, pdu []byte) {
	if !changes(pdu) {
		return
	}
	p.mu.Lock()
	p.writes++
	p.mu.Unlock()
	p.onWrite(Write{bus, unit, pdu[0], slices.Clone(pdu)})
}

// changes reports whether a device could do anything else on a request than
// answer it, after MODBUS Application Protocol V1.1b3, section 6. What that
// leaves to the vendor, or does not know, may do anything.
func changes(pdu []byte) bool {
	if len(pdu) == 0 {
		return false
	}
	switch pdu[0] {
	case 1, 2, 3, 4, // bits and registers
		7, 11, 12, 17, // exception status, event counter, event log, server id
		20, 24: // file record, FIFO
		return false
	case 8: // diagnostics: restart, another delimiter, listen only, counters cleared
		if len(pdu) < 3 {
			return false
		}
		sub := binary.BigEndian.Uint16(pdu[1:])
		return sub != 0 && sub != 2 && (sub < 11 || sub > 18)
	case 43: // encapsulated: 14 is the identification
		return len(pdu) > 1 && pdu[1] != 14
	}
	return pdu[0] != 0 && pdu[0] < 0x80 // those are no functions
}
