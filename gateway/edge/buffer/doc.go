// Package buffer is the board's crash-safe queue on flash: opaque records go
// in at one end, are read as often as needed and leave when they are freed.
//
// What it promises. A record whose Commit returned nil is read again, byte for
// byte, after any power cut, kill or reopening, until it is freed, or it is
// named in a gap record with its reason. Nothing that was not appended is ever
// read. Open succeeds whatever the files contain and deletes nothing unread.
// A record is readable at once, before it is on flash; what a power cut can
// take is what was appended since the last commit, at most Options.CommitEvery.
//
// Identity is (epoch, seq): the epoch is drawn at each opening, seq counts from
// 1 in it without holes. FORMAT.md beside this file has the bytes.
//
// A loss is named once: the record that names it is read only when it is on
// flash, and what it names is not read again. Opening drops nothing, however
// full the card is.
//
// Look reads a directory beside whoever has it open, or that of a dead board's
// card, and writes nothing.
//
// Flash is spared: segments are made once and used again, a commit is one
// padded write and one fdatasync, the cursor is written once a minute
// at most, and when something was lost.
// A failing card is survived: the segment is abandoned and its unsynced records
// go to another one; if that fails too they stay in a bounded RAM ring, Stats
// says so, and the card is tried again every 30 s.
package buffer
