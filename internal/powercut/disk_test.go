package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

const sector = 512

// disk is a drive with a volatile write cache, served over NBD to one client
// at a time (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md,
// fixed newstyle handshake, simple replies).
type disk struct {
	mu       sync.Mutex
	stable   []byte        // what a power cut leaves
	view     []byte        // what a reader sees
	dirty    map[int]bool  // sectors that differ
	off      bool          // the power is cut: nothing reaches the drive
	flushing chan struct{} // receives when a flush begins, of capacity one
}

func newDisk(image []byte) *disk {
	return &disk{stable: image, view: slices.Clone(image), dirty: map[int]bool{}, flushing: make(chan struct{}, 1)}
}

// powerOff is the instant from which nothing reaches the drive, the flush under
// way neither.
func (d *disk) powerOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
}

// powerOn has lost the cache: each sector in it stayed with a probability of p.
// It returns how many were in it and how many are lost.
func (d *disk) powerOn(r *rand.Rand, p float64) (cached, lost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = false
	cached = len(d.dirty)
	for _, s := range slices.Sorted(maps.Keys(d.dirty)) {
		a, b := s*sector, (s+1)*sector
		if r.Float64() < p {
			copy(d.stable[a:b], d.view[a:b])
		} else {
			copy(d.view[a:b], d.stable[a:b])
			lost++
		}
	}
	clear(d.dirty)
	return cached, lost
}

// flush takes as long as a card's does, so that a cut may find the cache full.
func (d *disk) flush() {
	select {
	case d.flushing <- struct{}{}:
	default:
	}
	time.Sleep(time.Duration(10+rand.IntN(30)) * time.Millisecond)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return
	}
	for s := range d.dirty {
		copy(d.stable[s*sector:(s+1)*sector], d.view[s*sector:])
	}
	clear(d.dirty)
}

func (d *disk) write(b []byte, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return
	}
	copy(d.view[off:], b)
	for s := int(off) / sector; s*sector < int(off)+len(b); s++ {
		d.dirty[s] = true
	}
}

func (d *disk) read(b []byte, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(b, d.view[off:])
}

// The protocol's numbers.
const (
	nbdMagic      = 0x4e42444d41474943
	nbdOption     = 0x49484156454F5054
	nbdOptReply   = 0x3e889045565a9
	nbdRequest    = 0x25609513
	nbdReply      = 0x67446698
	nbdOptAbort   = 2
	nbdOptGo      = 7
	nbdRepAck     = 1
	nbdRepInfo    = 3
	nbdRepUnsup   = 1<<31 | 1
	nbdFlags      = 1 | 1<<2 // has flags, has flush
	nbdRead       = 0
	nbdWrite      = 1
	nbdDisconnect = 2
	nbdFlush      = 3
	nbdInvalid    = 22 // EINVAL
)

// serve speaks NBD on one connection until the client is gone.
func (d *disk) serve(c net.Conn) error {
	defer c.Close()
	be := binary.BigEndian
	hello := be.AppendUint16(be.AppendUint64(be.AppendUint64(nil, nbdMagic), nbdOption), 1)
	if _, err := c.Write(hello); err != nil {
		return err
	}
	head := make([]byte, 28)
	if _, err := io.ReadFull(c, head[:4]); err != nil {
		return err
	}
	for chosen := false; !chosen; {
		if _, err := io.ReadFull(c, head[:16]); err != nil {
			return err
		}
		opt, n := be.Uint32(head[8:]), be.Uint32(head[12:])
		if be.Uint64(head) != nbdOption || n > 4096 {
			return errors.New("nbd: no option")
		}
		if _, err := io.CopyN(io.Discard, c, int64(n)); err != nil {
			return err
		}
		reply := func(kind uint32, data []byte) []byte {
			b := be.AppendUint32(be.AppendUint64(nil, nbdOptReply), opt)
			return append(be.AppendUint32(be.AppendUint32(b, kind), uint32(len(data))), data...)
		}
		var out []byte
		switch opt {
		case nbdOptGo:
			info := be.AppendUint16(be.AppendUint64(be.AppendUint16(nil, 0), uint64(len(d.view))), nbdFlags)
			out = append(reply(nbdRepInfo, info), reply(nbdRepAck, nil)...)
			chosen = true
		case nbdOptAbort:
			return nil
		default:
			out = reply(nbdRepUnsup, nil)
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
	}
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return err
		}
		kind, off, n := be.Uint16(head[6:]), int64(be.Uint64(head[16:])), int64(be.Uint32(head[24:]))
		if be.Uint32(head) != nbdRequest || n > 64<<20 {
			return errors.New("nbd: no request")
		}
		data := make([]byte, n)
		if kind == nbdWrite {
			if _, err := io.ReadFull(c, data); err != nil {
				return err // half a request never reached the drive
			}
		}
		status := uint32(0)
		if inside := off >= 0 && off+n <= int64(len(d.view)); !inside && kind != nbdDisconnect && kind != nbdFlush {
			status = nbdInvalid
		} else {
			switch kind {
			case nbdRead:
				d.read(data, off)
			case nbdWrite:
				d.write(data, off)
			case nbdFlush:
				d.flush()
			case nbdDisconnect:
				return nil
			default:
				status = nbdInvalid
			}
		}
		out := append(be.AppendUint32(be.AppendUint32(nil, nbdReply), status), head[8:16]...)
		if kind == nbdRead && status == 0 {
			out = append(out, data...)
		}
		if _, err := c.Write(out); err != nil {
			return fmt.Errorf("nbd: %w", err)
		}
	}
}
