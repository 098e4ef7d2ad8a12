package e2e

import (
	"net"
	"sync"
	"testing"
)

// What a chaosLink does with the bytes.
type linkMode int

const (
	linkWhole  linkMode = iota
	linkReset           // connections are reset, new ones too
	linkSilent          // bytes are taken and do not arrive, nobody is told
)

// chaosLink is a TCP proxy that can be cut.
type chaosLink struct {
	ln net.Listener
	to string

	mu     sync.Mutex
	news   *sync.Cond
	mode   linkMode
	closed bool
	pairs  map[*linkPair]bool
	broken int // connections that a cut ended or refused
	stayed int // pieces that a silent link held back
	join   sync.WaitGroup
}

type linkPair struct {
	in, out net.Conn
	dead    bool
}

func newChaosLink(t testing.TB, to string) *chaosLink {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &chaosLink{ln: ln, to: to, pairs: map[*linkPair]bool{}}
	l.news = sync.NewCond(&l.mu)
	l.join.Go(l.accept)
	t.Cleanup(func() {
		ln.Close()
		l.mu.Lock()
		l.closed = true
		l.endAll()
		l.news.Broadcast()
		l.mu.Unlock()
		l.join.Wait()
	})
	return l
}

func (l *chaosLink) addr() string { return l.ln.Addr().String() }

func (l *chaosLink) accept() {
	for {
		in, err := l.ln.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		refuse := l.mode == linkReset || l.closed
		if refuse {
			l.broken++
		}
		l.mu.Unlock()
		if refuse {
			reset(in)
			continue
		}
		l.join.Go(func() {
			out, err := net.Dial("tcp", l.to)
			if err != nil {
				reset(in)
				return
			}
			p := &linkPair{in: in, out: out}
			l.mu.Lock()
			if l.mode == linkReset || l.closed {
				l.end(p)
			} else {
				l.pairs[p] = true
			}
			l.mu.Unlock()
			l.join.Go(func() { l.carry(p, in, out) })
			l.carry(p, out, in)
		})
	}
}

// carry moves one direction until the pair ends.
func (l *chaosLink) carry(p *linkPair, from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		l.mu.Lock()
		if l.mode == linkSilent && n > 0 && !p.dead {
			l.stayed++
		}
		for l.mode == linkSilent && !p.dead && !l.closed {
			l.news.Wait()
		}
		dead := p.dead
		l.mu.Unlock()
		if n > 0 && !dead {
			if _, werr := to.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil || dead {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !p.dead {
		p.dead = true
		p.in.Close()
		p.out.Close()
	}
	delete(l.pairs, p)
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // at worst it is closed politely
	}
	c.Close()
}

// end resets a pair. l.mu is held.
func (l *chaosLink) end(p *linkPair) {
	if !p.dead {
		p.dead = true
		reset(p.in)
		reset(p.out)
		l.broken++
	}
}

func (l *chaosLink) endAll() {
	for p := range l.pairs {
		l.end(p)
	}
}

// set changes the mode; with breaking what is connected is reset.
func (l *chaosLink) set(mode linkMode, breaking bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mode = mode
	if breaking {
		l.endAll()
	}
	l.news.Broadcast()
}

// felt is how often a cut was felt by what went over the link.
func (l *chaosLink) felt() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken + l.stayed
}
