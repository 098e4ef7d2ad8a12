//go:build !linux

package bus

import "net"

// newSocket makes a stream of a connection.
func newSocket(c net.Conn) stream { return socket{c} }
