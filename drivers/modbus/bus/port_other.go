//go:build !linux

package bus

import "errors"

// openPort is for Linux boards; elsewhere only TCP works.
func openPort(RTUOptions) (stream, error) {
	return nil, errors.New("serial ports are supported on Linux only")
}
