package plant

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	firmwareconfig "luquan/firmware-config"
	"luquan/internal/conffile"
)

// Sim is what plantsim does: one of the sites that are built in, until its
// context ends.
type Sim struct {
	Options
	Site   string // folder in firmware-config/sites
	Script string // fault script to read; "": none
	JSON   bool   // describe the buses for programs
}

// Run starts the site, tells out where its buses are, and keeps it alive until
// ctx ends. Without Options.Dir the serial lines are in luquan/<site> in the
// system's temporary directory, where the example gateway.yaml looks for them.
func (s Sim) Run(ctx context.Context, out io.Writer) error {
	if s.Script != "" {
		data, err := conffile.Read(s.Script)
		if err != nil {
			return err
		}
		if s.Faults, err = ParseFaults(s.Script, data); err != nil {
			return err
		}
	}
	p, err := Load(firmwareconfig.FS, "sites/"+filepath.Base(s.Site), s.Options)
	if err != nil {
		return err
	}
	if p.dir == "" {
		p.dir = filepath.Join(os.TempDir(), "luquan", p.site)
	}
	if err := p.Start(ctx); err != nil {
		return err
	}
	defer p.Close()
	if err := s.describe(p, out); err != nil {
		return fmt.Errorf("describe the buses: %w", err)
	}
	<-ctx.Done()
	return nil
}

func (s Sim) describe(p *Plant, out io.Writer) error {
	if s.JSON {
		return json.NewEncoder(out).Encode(struct {
			Site  string `json:"site"`
			Buses []Bus  `json:"buses"`
		}{p.site, p.Buses()})
	}
	label := p.Label()
	var text bytes.Buffer // handed over in one piece: whoever waits for it has it all
	w := tabwriter.NewWriter(&text, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "%s  %s / %s\n", p.site, label.Zh, label.En)
	for _, b := range p.Buses() {
		if b.Port != "" {
			fmt.Fprintf(w, "bus %s\trtu %s\t%d baud, parity %s\n", b.Name, b.Port, b.Baud, b.Parity)
		} else {
			fmt.Fprintf(w, "bus %s\ttcp %s\t\n", b.Name, b.Addr)
		}
		for _, d := range b.Devices {
			fmt.Fprintf(w, "  %s\t%s\tunit %d\n", d.Name, d.Profile, d.Unit)
		}
	}
	w.Flush() // into memory
	_, err := text.WriteTo(out)
	return err
}
