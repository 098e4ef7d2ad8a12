package uplink

import (
	"fmt"
	"time"

	"luquan/gateway/wire"
)

func (s *session) state(online bool) ([]byte, error) {
	u := s.u
	st := wire.State{Online: online, Session: s.name, Since: s.since.UnixNano(), Version: u.cfg.Version,
		Boot: u.cfg.Boot, Cfg: u.cfg.Cfg, Holds: map[uint64][2]uint64{}}
	if s.since.IsZero() {
		st.Since = u.cfg.Now().UnixNano()
	}
	for _, h := range s.held {
		st.Holds[h.Epoch] = [2]uint64{h.First, h.Last}
		if h.Current {
			st.Epoch = h.Epoch
		}
	}
	doc, err := st.Marshal()
	if err != nil {
		return nil, fmt.Errorf("uplink: announce the state: %w", err)
	}
	return doc, nil
}

// announce publishes the state, retained.
func (s *session) announce(now time.Time) {
	s.stateAt, s.stateDue = now, false
	doc, err := s.state(true)
	if err != nil {
		s.u.warn("state is not announced", "error", err)
		return
	}
	s.publish(now, s.u.topic(wire.StateDoc), true, doc, flight{})
}

// overwritten looks at a state that came after ours.
func (s *session) overwritten(doc []byte) {
	if st, err := wire.ParseState(doc); err == nil && st.Online && st.Session == s.name {
		return
	}
	s.u.warn("state was overwritten, by the will of an earlier connection or by another board with this name",
		"site", s.u.cfg.Site, "gateway", s.u.cfg.Gateway)
	// A few times at once: the broker may give several old connections up
	// late. Then slowly: two boards of one name must not chase each other.
	if s.restated++; s.restated <= 3 {
		s.announce(time.Now())
		return
	}
	s.stateDue = true
}

// announceMeta publishes the document of a cfg, once in a session.
func (s *session) announceMeta(cfg string) {
	if s.metas[cfg] {
		return
	}
	doc, ok := s.u.cfg.Meta[cfg]
	if !ok {
		s.u.warn("records are held whose meta document is not there; they are sent without", "cfg", cfg)
		return
	}
	s.metas[cfg] = true
	s.publish(time.Now(), s.u.metaTopic(cfg), true, doc, flight{})
}

// clearMetas drops the documents of cfgs of which nothing is held any more.
func (s *session) clearMetas() {
	u := s.u
	need := map[string]bool{u.cfg.Cfg: true}
	for _, h := range s.held {
		_, cfg := parseLabel(h.Label)
		need[cfg] = true
	}
	for cfg := range u.cfg.Meta {
		if need[cfg] {
			continue
		}
		if s.cleared[cfg] {
			continue
		}
		s.cleared[cfg] = true
		s.publish(time.Now(), u.metaTopic(cfg), true, nil, flight{done: func() {
			delete(u.cfg.Meta, cfg)
			if u.cfg.MetaSettled != nil {
				u.cfg.MetaSettled(cfg)
			}
		}})
	}
}
