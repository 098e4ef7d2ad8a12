// Package wire is the form in which telemetry leaves the board: MQTT topics,
// the payload of line protocol with its one header line and its compression,
// the JSON documents beside it, and the stored form in which the board's queue
// holds a record before it is published. docs/contract.md, section MQTT, is the
// law; FORMAT.md describes the stored form, which never leaves the board.
//
// A record takes this way:
//
//	Store(sample)              when polled: bytes for the queue, without epoch and seq
//	AppendLine(stored, e, seq) when published: one line, the same each time
//	Encode(header, lines)      one MQTT payload
//	Decode(topic, payload)     at the hub: records, each with its own error
//
// Nothing here keeps state, and every function may be called from any goroutine.
package wire
