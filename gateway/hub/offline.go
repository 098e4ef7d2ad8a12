package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"luquan/gateway/hub/console"
	"luquan/gateway/hub/history/influx"
	"luquan/gateway/hub/history/sqlite"
	"luquan/gateway/hub/ingest"
	"luquan/gateway/hub/ledger"
)

// ReadLedger answers from the books in state.dir, beside a running hub or
// without one, and changes nothing in them.
func ReadLedger(ctx context.Context, cfg Config, q console.LedgerQuery) (_ []ledger.Row, err error) {
	l, err := ledger.OpenReadOnly(filepath.Join(cfg.State.Dir, ledgerFile))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if !q.Verify {
		return l.Account(ctx, ledgerQuery(q, nil))
	}
	if cfg.Influx == nil {
		return l.Account(ctx, ledgerQuery(q, sqlite.Reader{Dir: cfg.History.Dir}))
	}
	token, err := cfg.Influx.token()
	if err != nil {
		return nil, err
	}
	s, err := influx.Open(influx.Config{URL: cfg.Influx.URL, Org: cfg.Influx.Org, Bucket: cfg.Influx.Bucket, Token: token})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return l.Account(ctx, ledgerQuery(q, s))
}

// ReadQuarantine lists the lines in quarantine beside a running hub or without
// one; see console.Quarantine.
func ReadQuarantine(cfg Config, f console.QuarantineFilter, limit int) ([]console.QuarantineEntry, int, error) {
	return kept{quarantine: ingest.ReadOnlyQuarantine(filepath.Join(cfg.State.Dir, "quarantine"))}.Find(f, limit)
}

// Importer stores what no board sends, without a running hub: it holds
// state.dir as a hub would.
type Importer struct {
	hub      Hub
	consumer *ingest.Consumer
}

// OpenImporter opens the books and the history. It fails when a hub runs.
func OpenImporter(cfg Config, log *slog.Logger) (_ *Importer, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	i := &Importer{hub: Hub{cfg: cfg, log: log, start: time.Now()}}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.Close())
		}
	}()
	lock, err := lockState(cfg.State.Dir)
	if err != nil {
		return nil, fmt.Errorf("no hub answers on %s, and %w", cfg.Console.Listen, err)
	}
	i.hub.onClose("lock of state.dir", lock.Close)
	if err := i.hub.openBooks(cfg.Name + "/" + bootID()); err != nil {
		return nil, err
	}
	if err := i.hub.openStore(); err != nil {
		return nil, err
	}
	i.consumer = ingest.New(ingest.Config{
		Hub: cfg.Name, Sites: cfg.Sites, Store: storeAdapter{i.hub.store},
		Ledger: i.hub.ledger, Quarantine: i.hub.quarantine, Log: log,
	})
	return i, nil
}

// Import stores one payload, named by the topic it would have come on; see
// ingest.Consumer.Import.
func (i *Importer) Import(ctx context.Context, topic string, payload []byte) (ingest.Imported, error) {
	return i.consumer.Import(ctx, topic, payload)
}

// Close gives everything back.
func (i *Importer) Close() error { return i.hub.close() }
