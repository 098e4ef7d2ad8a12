package buffer

import "time"

// Stats is the state of a queue and what it has done since it was opened.
type Stats struct {
	Epoch   uint64    // current epoch
	Entries uint64    // records held: not freed, on flash or in RAM
	Oldest  time.Time // when the oldest record held was appended, by the board's clock of then, to within a commit while it is in RAM and a segment otherwise; zero when none is held

	Bytes    int64 // of all segment files, spare ones included
	Segments int   // that hold records, on flash or in RAM
	Spares   int   // files kept for reuse
	SetAside int   // files with no readable header: never touched, to be looked at by a person

	Uncommitted  uint64    // records that a power cut now would take
	Failing      bool      // the card refuses writes: records are in RAM only
	FailingSince time.Time // zero when not Failing

	Appended     uint64 // by Append
	Commits      uint64 // one write and one sync each
	BytesWritten uint64 // to segments and cursor, headers and zero-filling included
	Syncs        uint64 // of files and of the directory
	CursorWrites uint64 // successful ones
	WriteErrors  uint64 // failed writes and syncs of segments and cursor
	ReadErrors   uint64 // failed reads of segments
	LastError    string // of the card; "" when there was none
	Damaged      uint64 // stretches of bytes in segments that no frame explains: torn commits, flipped bits
	Lost         uint64 // records named in gap records: dropped for room, by a failing card, or damaged
	LostFull     uint64 // of these, dropped because the quota or the file system was full
	FreeRefused  uint64 // calls of Free that named numbers never drawn
}

// Stats returns the state of the queue.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle()
	s := q.stats
	s.Epoch, s.Bytes, s.Spares, s.SetAside = q.cur.ep.id, q.total, len(q.spares), q.setAside
	s.Uncommitted = q.cur.ep.last - min(q.durable, q.cur.ep.last)
	s.Failing, s.FailingSince = !q.failing.IsZero(), q.failing
	for _, ep := range q.epochs {
		for _, g := range ep.segs {
			n := ep.freed.count(g.base, g.last)
			s.Entries += n
			s.Segments++
			if n > 0 && s.Oldest.IsZero() {
				s.Oldest = g.when(ep.freed.next(g.base))
			}
		}
	}
	return s
}
