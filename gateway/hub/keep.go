package hub

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"luquan/gateway/hub/backup"
	"luquan/gateway/hub/journal"
)

// kept is what a backup holds, in the order that package backup asks for: the
// ledger before what it vouches for.
func (c Config) kept() []backup.Source {
	in := func(name string) backup.Source {
		return backup.Source{Name: "state/" + name, Path: filepath.Join(c.State.Dir, name)}
	}
	list := []backup.Source{in(ledgerFile), in(journal.File), in("quarantine"), in("gateways")}
	if c.Influx == nil {
		list = append(list, backup.Source{Name: "history", Path: c.History.Dir})
	}
	return list
}

// Backup copies what the hub of cfg knows into dir, beside the running hub or
// without one. With InfluxDB the history is not part of it: InfluxDB has
// backups of its own.
func Backup(ctx context.Context, cfg Config, version, dir string, told func(backup.File)) (backup.Manifest, error) {
	m, err := backup.Take(ctx, dir, backup.Manifest{Hub: cfg.Name, Version: version, Taken: time.Now().UTC()}, cfg.kept(), told)
	if err == nil && len(m.Files) == 0 {
		return m, fmt.Errorf("backup: there is nothing in %s yet: the hub has never run by this configuration", cfg.State.Dir)
	}
	return m, err
}

// Restore puts a backup where the hub of cfg looks for it. It refuses while a
// hub runs, and where there is anything already.
func Restore(ctx context.Context, cfg Config, dir string, told func(backup.File)) (_ backup.Manifest, err error) {
	lock, err := lockState(cfg.State.Dir)
	if err != nil {
		return backup.Manifest{}, err
	}
	defer lock.Close()
	return backup.Restore(ctx, dir, cfg.kept(), told)
}
