// Package modbus is the driver of Modbus devices: it turns a bus and its
// devices as gateway.yaml describes them into read plans, and what comes back
// into samples.
//
// A device's points of one period form a group. The requests that read a group
// come from package plan, once; package bus carries them; package profile says
// what the words mean. A device that refuses a request which joins several
// values is asked for each of them by itself, and from then on, so that one
// register it does not have costs only the point that wanted it.
//
// Nothing here can write: the only way to a device is bus.Reader.
package modbus
