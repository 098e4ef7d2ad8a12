// Package alarm judges readings by rules. It reads rule files, and its Engine
// is a pure state machine after ISA-18.2: it takes the time as an argument,
// does no input or output, and returns events. The same readings in the same
// order give the same events on the hub, on a board and in a user's tests.
//
// docs/alarms.md has the table of states this package follows, docs/contract.md
// the format of the rules.
package alarm
