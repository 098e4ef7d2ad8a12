// Package telemetry holds the nouns of Luquan: what was measured, how good it
// is and when it was true. Every other package speaks in these words; this one
// imports only the standard library and does nothing but describe.
//
// The words are those of docs/contract.md. A *site* is a plant, a *gateway* one
// board, a *device* a thing on a bus, a *point* one measured quantity of a
// device, a *sample* the outcome of polling one group of one device's points
// once. A point's full name is site/device/point.
package telemetry
