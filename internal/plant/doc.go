// Package plant simulates the floor of a plant: its physics, and the Modbus
// devices that measure it, over TCP and over serial lines paced at their baud
// rate. It is what the demo shows and what the end-to-end tests measure
// against, so it shares with the gateway only the device profiles as data
// (which register holds what): it encodes, frames and checks by itself. An
// error shared by both ends would cancel itself out.
//
// A site is a folder: plant.yaml names the physical model, the buses, the
// devices on them and which quantity feeds which point; gateway*.yaml are the
// boards' configurations; rules.yaml the alarm rules; faults.yaml an example
// of a fault script; day.yaml the incidents of a day.
//
// # The truth about what was served
//
// Every device has, for each group index g from 0 to 7, a u32 (high word
// first) at address 65000+2g of both the holding and the input table, which no
// real device has: the serial register. It counts its own complete reads. A
// request that covers both words raises the count, answers the new one, and
// the count stays raised only when that answer was handed over whole; under
// silence or garbling it does not move. A gateway that reads the register as
// the last request of each poll of group g thus stores the number of the poll,
// and Served tells how many there were.
//
// # Behaviour on the wire
//
// Function codes 1 to 4 are answered, every other is refused with exception 1.
//
// The gateway's promise is that it only reads. So a request that could change a
// plant (Write), to whichever unit, present or not, broadcast included, is a
// panic that names bus, unit, function and bytes, and ends the process: it would
// have moved a pump. A test that lets another program write sets
// Options.OnWrite; the request is then told there, counted (WriteAttempts) and
// refused. Requests that only ask (exception status, event counters, the
// identification and the like) are no writes.
//
// A block longer than the model allows is refused
// with exception 3, one that touches an undefined register according to the
// model's gap policy with exception 2 or filled. On a serial line a foreign
// unit stays silent, as does everyone while the client's port is set to
// another speed; over TCP a foreign unit is answered with exception 11, as a
// Modbus gateway does.
package plant
