package ingest

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"luquan/gateway/wire"
)

func stateDoc(t *testing.T, session, cfg string, online bool) []byte {
	t.Helper()
	b, err := wire.State{Online: online, Session: session, Boot: "b", Epoch: 9, Cfg: cfg, Holds: map[uint64][2]uint64{9: {4, 3}}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		for _, x := range []struct {
			session string
			online  bool
		}{{"a", true}, {"b", true}, {"a", false}, {"b", false}} {
			r.Handle("luquan/v1/s/g/state", stateDoc(t, x.session, "9f86d081", x.online), time.Now())
		}
		pass(time.Second)
		if len(r.states) != 3 || r.states[2].Session != "b" || r.states[2].Online || r.Stats().OldGoodbyes != 1 {
			t.Fatalf("states %+v", r.states)
		}
		if g := r.Gateways(); len(g) != 1 || g[0].State.Online || g[0].Site != "s" {
			t.Fatalf("%+v", g)
		}
		// The board connects: it is told what is settled, here by its own word.
		if len(r.published) == 0 || r.upto() != 3 {
			t.Fatalf("%d committed, to %d", len(r.published), r.upto())
		}
		for _, bad := range []string{"", "{", `{"v":2}`} {
			r.Handle("luquan/v1/s/g/state", []byte(bad), time.Now())
		}
		if len(r.states) != 3 {
			t.Fatal("a bad state was handed on")
		}
		r.stop()
	})
}

// TestMetas: retained metas come in any order, only the current one counts.
func TestMetas(t *testing.T) {
	r := newRig(t, nil)
	defer r.ledger.Close()
	docs := map[string][]byte{}
	var cfgs []string
	for _, linger := range []time.Duration{0, time.Second, time.Minute} {
		doc, cfg, err := wire.Meta{Site: "s", Gateway: "g", Linger: linger}.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		docs[cfg] = doc
		cfgs = append(cfgs, cfg)
	}
	give := func(cfg string) { r.Handle("luquan/v1/s/g/meta/"+cfg, docs[cfg], time.Now()) }
	give(cfgs[0])
	r.Handle("luquan/v1/s/g/state", stateDoc(t, "a", cfgs[1], true), time.Now())
	give(cfgs[2])
	give(cfgs[1])
	give(cfgs[0])
	give(cfgs[1])
	if len(r.metas) != 2 || r.metas[1].Linger != time.Second {
		t.Fatalf("%+v", r.metas)
	}
	r.Handle("luquan/v1/s/g/state", stateDoc(t, "b", cfgs[2], true), time.Now())
	if len(r.metas) != 3 || r.metas[2].Linger != time.Minute {
		t.Fatalf("%+v", r.metas)
	}
	r.Handle("luquan/v1/s/other/meta/"+cfgs[0], docs[cfgs[0]], time.Now())
	r.Handle("luquan/v1/s/g/meta/"+cfgs[0], docs[cfgs[1]], time.Now())
	if len(r.metas) != 3 || r.Stats().BadTopics != 2 {
		t.Fatalf("a meta of another board or cfg was taken: %+v", r.Stats())
	}
}

func TestOtherHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		doc := func(hub string, at time.Time) []byte {
			b, err := wire.Committed{Hub: hub, Time: at.UnixNano()}.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		r.Handle("luquan/v1/s/g/committed", doc("hub-1/older-boot", time.Now()), time.Now())
		r.Handle("luquan/v1/s/g/committed", doc("old-name/x", time.Now().Add(-time.Hour)), time.Now())
		r.send(1, 3)
		pass(time.Second)
		if r.upto() != 3 {
			t.Fatal("stopped by itself or by what a renamed hub left")
		}
		r.Handle("luquan/v1/s/g/committed", doc("hub-2/x", time.Now()), time.Now())
		r.send(4, 6)
		pass(time.Second)
		if r.upto() != 3 || len(r.stored) != 6 || r.Gateways()[0].OtherHub != "hub-2" {
			t.Fatalf("committed to %d, %d stored, %+v", r.upto(), len(r.stored), r.Gateways())
		}
		r.stop()
	})
}

func TestStrangeMessages(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Sites = []string{"s", "north-*"} })
	defer r.ledger.Close()
	good := payload(t, 1, 2)
	for topic, body := range map[string]string{
		"telegraf/x": "m x=1", "luquan/v1/other/g/live": string(good), "luquan/v1/s/g/live": "garbage",
		"luquan/v1/s/g/live.zst": string(good), "luquan/v1/s/g/backfill": string(good), "luquan/v1/hub/h/time": "{}",
		"luquan/v1/s/g/evidence": "{}", "luquan/v1/s/g/committed": "x", "luquan/v1/s/g/meta/9f86d081": "x",
	} {
		r.Handle(topic, []byte(body), time.Now())
	}
	if st := r.Stats(); st.Records != 0 || st.BadPayloads != 3 || st.NotOurs != 1 || st.BadTopics != 3 || len(r.seen) != 0 {
		t.Fatalf("%+v", st)
	}
}

func TestQuarantineSurvivesTornLine(t *testing.T) {
	dir := t.TempDir()
	q, err := OpenQuarantine(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := q.Add([]Entry{NewEntry(time.Now(), "s", "g", 9, uint64(i+1), "why", []byte("a\\b\"c"))}); err != nil {
			t.Fatal(err)
		}
	}
	q.Close()
	names, _ := q.names()
	f, err := os.OpenFile(filepath.Join(dir, names[0]), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"time":"2026-01-01T0`)
	f.Close()
	q, err = OpenQuarantine(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.Add([]Entry{NewEntry(time.Now(), "s", "g", 9, 6, "why", []byte("x"))}); err != nil {
		t.Fatal(err)
	}
	es, total, err := q.Find(Filter{}, 4)
	if err != nil || len(es) != 4 || total != 6 {
		t.Fatalf("%+v, %v", es, err)
	}
	for i, e := range es {
		if e.Seq != uint64(6-i) {
			t.Errorf("entry %d is seq %d", i, e.Seq)
		}
	}
	if all, _, _ := q.Find(Filter{}, 100); len(all) != 6 || all[5].Line != "a\\b\"c" {
		t.Fatalf("%+v", all)
	}
}
