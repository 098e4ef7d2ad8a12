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
	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Sim is what plantsim does: one of the sites that are built in, until its
// context ends.
type Sim struct {
	Options
	Site   string // folder in firmware-config/sites
	Script string // fault script to read; "": none
	Day    bool   // play the site's day.yaml
	JSON   bool   // describe the buses for programs
}

// Sites returns the folders of the sites that are built in.
func Sites() []string { return sites(firmwareconfig.FS, "sites") }

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
	folder := "sites/" + filepath.Base(s.Site)
	if s.Day {
		var err error
		if s.Options.Day, err = LoadDay(firmwareconfig.FS, folder); err != nil {
			return err
		}
		s.OnIncident = func(i Incident, begins bool) { s.tell(out, i, begins) }
	}
	p, err := Load(firmwareconfig.FS, folder, s.Options)
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

// tell says that an incident begins or is over. It comes after the buses, in
// the plant's goroutine: a reader who is gone ends nothing.
func (s Sim) tell(out io.Writer, i Incident, begins bool) {
	if s.JSON {
		_ = json.NewEncoder(out).Encode(struct {
			Incident telemetry.Label `json:"incident"`
			At       Clock           `json:"at"`
			Begins   bool            `json:"begins"`
			Raises   []string        `json:"raises,omitempty"`
		}{i.Label, i.At, begins, i.Raises})
		return
	}
	word := "结束 over  "
	if begins {
		word = "发生 begins"
	}
	fmt.Fprintf(out, "%s %s  %s / %s\n", i.At, word, i.Label.Zh, i.Label.En)
}
