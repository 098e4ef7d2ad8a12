// Package bus owns one serial line or one socket and reads Modbus over it.
//
// It supplies the transporters under goburrow/modbus's client (whose packagers
// stay in use): RTU on a serial port, Modbus TCP, and RTU over TCP. The
// library's own transporters are never used; what they get wrong, and what is
// done about it here:
//
//   - RTU has no transaction id, so an answer that comes after its time-out is
//     taken for the answer to the next request. Here every request is preceded
//     by a flush and by the line's silence, and after an error nothing is sent
//     to that unit until its late answer has come or one more limit is over. A
//     device slower still is asked for one register first, and what comes from
//     it is told apart by its length and by the order of the requests.
//     Before the first request after the first opening the line is listened to
//     for the response limit and a second: whoever used it before us, a gatewayd
//     that was killed perhaps, may still be answered.
//   - Their time-out is one per read(2), so a dribbling device holds the line.
//     Here a transaction has one absolute deadline, and obeys a context.
//   - A port that is unplugged returns 0 bytes for ever. Here that is a lost
//     port: it is closed and reopened by its path, with back-off.
//   - A TCP time-out leaves the client one answer behind. Here transaction
//     identifiers are checked and stale answers dropped.
//   - An exception split over two reads is mistaken for damage. Here frames are
//     read by their expected length as bytes arrive.
//
// Nothing can be written to a device: a Reader has only the four read
// functions, and the transporter refuses every other function code.
//
// References: MODBUS over Serial Line V1.02 (sections 2.5.1.1: t1.5 and t3.5;
// t1.5 is never enforced on receive because USB adapters deliver in bursts),
// MODBUS Messaging on TCP/IP Implementation Guide V1.0b (section 3.1.3: MBAP).
package bus
