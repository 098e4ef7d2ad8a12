package bus

import (
	"context"
	"net"
	"time"
)

// Wait is the longest that one read holds the line when no answer comes, from
// the silence before it. data is how many bytes the answer would have carried.
func (o RTUOptions) Wait(data int, response time.Duration) time.Duration {
	return o.Gap() + time.Duration(8+min(5+data, fifo))*o.CharTime() + response + slack
}

// Gap is the silence before a request: none over Modbus TCP.
func (o TCPOptions) Gap() time.Duration {
	if o.RTU {
		return tcpGap
	}
	return 0
}

// Wait is the longest that one read holds the endpoint when no answer comes.
func (o TCPOptions) Wait(response time.Duration) time.Duration {
	if o.RTU {
		return tcpGap + response + slack
	}
	return response
}

// Over returns the Bus of a serial line of these options whose bytes travel on
// what dial returns: a line in memory, in testing/synctest. Port is not opened.
func (o RTUOptions) Over(dial func(context.Context) (net.Conn, error)) *Bus {
	return newBus(func(ctx context.Context) (stream, error) {
		c, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return memory{c}, nil
	}, func(t *trace) framing {
		return &rtu{char: o.CharTime(), gap: o.Gap(), echo: o.Echo, trace: t}
	}, false)
}

// memory makes a stream of a connection that gives at once what it has.
type memory struct{ net.Conn }

func (m memory) flush(b []byte) (dropped int, err error) {
	for into := b; ; into = b[min(dropped, len(b)):] {
		if len(into) == 0 {
			into = make([]byte, maxRTU)
		}
		m.SetReadDeadline(time.Now().Add(time.Microsecond))
		n, err := m.Read(into)
		dropped += n
		if timedOut(err) {
			return dropped, nil
		}
		if err != nil {
			return dropped, err
		}
	}
}
