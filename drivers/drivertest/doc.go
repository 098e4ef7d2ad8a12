// Package drivertest holds what tests of drivers share: a conformance suite
// that every driver passes (TestDevice), an in-memory line and a
// pseudo-terminal to run them on, a scripted Modbus slave to sit at the other
// end, and Record and Playback of real bus traffic.
//
// The slave builds its frames by itself and shares no code with the driver:
// an error shared would cancel itself out. It is for tests only.
package drivertest
