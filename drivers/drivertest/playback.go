package drivertest

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// Exchange is one request and everything that came back before the next.
type Exchange struct{ Request, Answer []byte }

// Recorder records the traffic of a connection, to be kept as a fixture.
type Recorder struct {
	net.Conn
	mu  sync.Mutex
	log []Exchange
}

// Record returns a connection that notes what passes through c.
func Record(c net.Conn) *Recorder { return &Recorder{Conn: c} }

// Read implements net.Conn.
func (r *Recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > 0 && len(r.log) > 0 {
		x := &r.log[len(r.log)-1]
		x.Answer = append(x.Answer, b[:n]...)
	}
	return n, err
}

// Write implements net.Conn.
func (r *Recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	r.log = append(r.log, Exchange{Request: append([]byte(nil), b...)})
	r.mu.Unlock()
	return r.Conn.Write(b)
}

// Exchanges returns what was recorded.
func (r *Recorder) Exchanges() []Exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Exchange(nil), r.log...)
}

// FormatExchanges writes traffic as text: a line `> 01 03 ...` for each
// request, `< ...` for its answer.
func FormatExchanges(xs []Exchange) string {
	var b strings.Builder
	for _, x := range xs {
		fmt.Fprintf(&b, "> % x\n< % x\n", x.Request, x.Answer)
	}
	return b.String()
}

// ParseExchanges reads what FormatExchanges wrote. Lines that begin with # are comments.
func ParseExchanges(text string) ([]Exchange, error) {
	var xs []Exchange
	sc := bufio.NewScanner(strings.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(line[1:], " ", ""))
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d: %w", n, err)
		case line[0] == '>':
			xs = append(xs, Exchange{Request: b})
		case line[0] == '<' && len(xs) > 0:
			xs[len(xs)-1].Answer = append(xs[len(xs)-1].Answer, b...)
		default:
			return nil, fmt.Errorf("line %d: want a request (>) or an answer (<)", n)
		}
	}
	return xs, sc.Err()
}

// Playback returns a connection on which each request must be the next of xs
// and is answered as recorded. A different request fails the test. Modbus TCP
// transaction identifiers (tcp true) are not compared; the answer gets the
// request's. After the last exchange nothing answers.
func Playback(t testing.TB, xs []Exchange, tcp bool) net.Conn {
	near, far := Pair()
	var done sync.WaitGroup
	done.Go(func() {
		for i, x := range xs {
			got := make([]byte, len(x.Request))
			if _, err := io.ReadFull(far, got); err != nil {
				return
			}
			ans := append([]byte(nil), x.Answer...)
			from := 0
			if tcp {
				from = 2
				copy(ans, got[:2])
			}
			if string(got[from:]) != string(x.Request[from:]) {
				t.Errorf("request %d is % x, recorded was % x", i+1, got, x.Request)
				return
			}
			far.Write(ans)
		}
	})
	t.Cleanup(func() { near.Close(); done.Wait() })
	return near
}
