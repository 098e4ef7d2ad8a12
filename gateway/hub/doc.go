// Package hub assembles the centre's half of Luquan: the broker hands payloads
// to ingest, ingest hands each record at once to the alarm engine and the live
// values and then queues it to the history; the ledger keeps count and tells
// the boards what they may forget. It is the only package that knows both
// neighbours of each of these stages.
package hub
