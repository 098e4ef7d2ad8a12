package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"unicode/utf8"

	"luquan/drivers/modbus/profile"
)

// model is a profile as --json tells it; list leaves the points out.
type model struct {
	ID         string       `json:"id"`
	Vendor     string       `json:"vendor"`
	Model      string       `json:"model"`
	Kind       string       `json:"kind"`
	Zh         string       `json:"label_zh"`
	En         string       `json:"label_en"`
	UsedAt     []string     `json:"used_at"`
	Transport  []string     `json:"transport"`
	Book       string       `json:"book,omitempty"` // how the maker counts
	SharesUnit bool         `json:"shares_unit,omitempty"`
	Confidence string       `json:"confidence"`
	Source     string       `json:"source"`
	Also       []string     `json:"also,omitempty"`
	SourceNote string       `json:"source_note,omitempty"`
	Unproven   []string     `json:"unproven"`
	Notes      []string     `json:"notes,omitempty"`
	Serial     string       `json:"serial,omitempty"` // as it leaves the factory
	Params     []modelParam `json:"params,omitempty"`
	Count      int          `json:"point_count"`
	Points     []modelPoint `json:"points,omitempty"`
}

// modelParam is a setting of the device; Shown is the one that the points
// here are of.
type modelParam struct {
	Name    string   `json:"name"`
	Zh      string   `json:"label_zh"`
	En      string   `json:"label_en"`
	Shown   string   `json:"shown,omitempty"`
	OneOf   []string `json:"one_of"`
	Default string   `json:"default,omitempty"` // absent: gateway.yaml must say it
	Note    string   `json:"note,omitempty"`
}

type modelPoint struct {
	Name       string `json:"name"`
	Table      string `json:"table"`
	Address    uint16 `json:"address"`
	DocAddress string `json:"doc_address,omitempty"` // as the maker prints it
	UnitOffset uint8  `json:"unit_offset,omitempty"`
	Type       string `json:"type"`
	Unit       string `json:"unit"`
	Zh         string `json:"label_zh"`
	En         string `json:"label_en"`
	Note       string `json:"note,omitempty"`
	Varies     bool   `json:"varies,omitempty"` // with other parameters it stands elsewhere, or is of another type
}

// elsewhere reports whether q is read otherwise than p.
func (p modelPoint) elsewhere(q modelPoint) bool {
	return p.Table != q.Table || p.Address != q.Address || p.UnitOffset != q.UnitOffset || p.Type != q.Type
}

// lookup finds the profile; a parameter that is not given is shown at its
// default, or at its first value where gateway.yaml must say it.
func lookup(lib *profile.Library, id string, given map[string]string) (model, error) {
	chosen := maps.Clone(given)
	for _, p := range lib.Params(id) {
		if _, ok := chosen[p.Name]; !ok {
			if chosen == nil {
				chosen = map[string]string{}
			}
			chosen[p.Name] = cmp.Or(p.Default, p.OneOf[0])
		}
	}
	p, err := lib.Lookup(id, chosen)
	if err != nil {
		return model{}, err
	}
	return modelOf(lib, []*profile.Profile{p}, chosen), nil
}

// modelOf describes a profile by its forms, of which there is one or more,
// with every point of any; chosen are the parameters that they are shown with.
func modelOf(lib *profile.Library, forms []*profile.Profile, chosen map[string]string) model {
	p := forms[0]
	m := model{
		ID: p.ID, Vendor: p.Vendor, Model: p.Model, Kind: p.Kind, Zh: p.Label.Zh, En: p.Label.En,
		UsedAt: append([]string{}, p.UsedAt...), Transport: append([]string{}, p.Transport...), Book: p.Book, SharesUnit: p.SharesUnit,
		Confidence: p.Source.Confidence, Source: p.Source.Where, Also: p.Source.Also, SourceNote: p.Source.Note,
		Unproven: append([]string{}, p.Unproven...), Notes: p.Notes, Serial: serialText(p.Serial),
	}
	for _, q := range lib.Params(p.ID) {
		m.Params = append(m.Params, modelParam{q.Name, q.Label.Zh, q.Label.En, chosen[q.Name], q.OneOf, q.Default, q.Note})
	}
	seen := map[string]int{} // where it is in m.Points
	for _, form := range forms {
		for i := range form.Points {
			pt := pointOf(&form.Points[i])
			at, known := seen[pt.Name]
			if !known {
				seen[pt.Name] = len(m.Points)
				m.Points = append(m.Points, pt)
			} else if m.Points[at].elsewhere(pt) {
				m.Points[at].Varies = true
			}
		}
	}
	m.Count = len(m.Points)
	return m
}

func pointOf(p *profile.Point) modelPoint {
	m := modelPoint{
		Name: p.Name, Table: p.Table.String(), Address: p.Address, DocAddress: p.DocAddress, UnitOffset: p.UnitOffset,
		Type: p.Type.String(), Unit: p.Unit, Zh: p.Label.Zh, En: p.Label.En, Note: p.Note,
	}
	if p.Type == profile.Text {
		m.Type += ":" + strconv.Itoa(int(p.Length))
	}
	return m
}

// serialText says what is known of the line's settings: "9600 baud, parity none, unit 1".
func serialText(s profile.Serial) string {
	var parts []string
	add := func(known bool, format string, args ...any) {
		if known {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(s.Baud != 0, "%d baud", s.Baud)
	add(s.DataBits != 0, "%d data bits", s.DataBits)
	add(s.Parity != "", "parity %s", s.Parity)
	add(s.StopBits == 1, "1 stop bit")
	add(s.StopBits > 1, "%d stop bits", s.StopBits)
	add(s.Unit != 0, "unit %d", s.Unit)
	add(s.Note != "", "%s", s.Note)
	return strings.Join(parts, ", ")
}

// has reports whether the text is somewhere in what the model is called.
func (m model) has(text string) bool {
	in := []string{m.ID, m.Vendor, m.Model, m.Zh, m.En}
	for _, p := range m.Points {
		in = append(in, p.Name, p.Zh, p.En)
	}
	return strings.Contains(strings.ToLower(strings.Join(in, "\n")), strings.ToLower(text))
}

// name is how people call the model.
func (m model) name() string {
	if strings.HasPrefix(m.Model, m.Vendor) {
		return m.Model
	}
	return m.Vendor + " " + m.Model
}

func (m model) print(w io.Writer) error {
	fmt.Fprintf(w, "%s: %s, kind %s\n", m.ID, m.name(), m.Kind)
	fmt.Fprintf(w, "called: %s, %s\n", m.Zh, m.En)
	fmt.Fprintf(w, "source (confidence %s): %s\n", m.Confidence, m.Source)
	for _, line := range []struct {
		what string
		text []string
	}{
		{"also", m.Also}, {"about the source", nonEmpty(m.SourceNote)}, {"unproven", m.Unproven}, {"note", m.Notes},
		{"used at", nonEmpty(strings.Join(m.UsedAt, ", "))}, {"spoken over", nonEmpty(strings.Join(m.Transport, ", "))},
		{"the maker's book counts", nonEmpty(m.Book)}, {"as it leaves the factory", nonEmpty(m.Serial)},
	} {
		for _, t := range line.text {
			fmt.Fprintf(w, "%s: %s\n", line.what, t)
		}
	}
	if m.SharesUnit {
		fmt.Fprintln(w, "shares its unit address with other devices on the bus")
	}
	for _, p := range m.Params {
		must := "default " + p.Default
		if p.Default == "" {
			must = "gateway.yaml must say it"
		}
		fmt.Fprintf(w, "parameter %s: %s (shown: %s; %s): %s, %s\n", p.Name, strings.Join(p.OneOf, ", "), p.Shown, must, p.Zh, p.En)
		if p.Note != "" {
			fmt.Fprintf(w, "  %s\n", p.Note)
		}
	}
	rows := [][]string{{"POINT", "TABLE", "ADDRESS", "PRINTED", "TYPE", "UNIT", "中文", "ENGLISH"}}
	for _, p := range m.Points {
		address := strconv.Itoa(int(p.Address))
		if p.UnitOffset > 0 {
			address += fmt.Sprintf(" of unit+%d", p.UnitOffset)
		}
		rows = append(rows, []string{p.Name, p.Table, address, cmp.Or(p.DocAddress, "-"), p.Type, p.Unit, p.Zh, p.En})
	}
	fmt.Fprintln(w)
	if err := printTable(w, rows); err != nil {
		return err
	}
	for _, p := range m.Points {
		if p.Note != "" {
			if _, err := fmt.Fprintf(w, "%s: %s\n", p.Name, p.Note); err != nil {
				return err
			}
		}
	}
	return nil
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// printTable writes the rows with their columns aligned.
func printTable(w io.Writer, rows [][]string) error {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], columns(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", width[i]-columns(cell)+2))
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// columns is the width of s on a terminal, where Chinese takes two columns a
// character; text/tabwriter would count one.
func columns(s string) int {
	n := utf8.RuneCountInString(s)
	for _, r := range s {
		if r >= 0x2E80 && r <= 0xFFEF {
			n++
		}
	}
	return n
}
