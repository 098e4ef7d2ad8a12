package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	firmwareconfig "luquan/firmware-config"
	"luquan/internal/conffile"
)

// leftOut is firmware-config/left-out.yaml.
type leftOut struct {
	LeftOut []struct{ Device, What, Why string } `yaml:"left_out"`
}

// printMarkdown writes docs/devices.md: what is supported, where it is known
// from, what nobody has proven.
func printMarkdown(w io.Writer, models []model) error {
	var out leftOut
	data, err := firmwareconfig.FS.ReadFile("left-out.yaml")
	if err != nil {
		return fmt.Errorf("read what is left out: %w", err)
	}
	if _, err := conffile.Parse("left-out.yaml", data, &out); err != nil {
		return err
	}
	var b strings.Builder
	points := 0
	for _, m := range models {
		points += m.Count
	}
	fmt.Fprintf(&b, `# Devices

%d device models, %d points. Written by `+"`gatewayctl profile list --markdown`"+` from firmware-config/devices; a test holds the two
together. Confidence is how far the source can be believed: high is running code or the maker's book, medium one source that nobody
doubted, low a first draft. What is unproven must be settled on the first device on site; a wrong guess gives wrong values. Where a register goes
by the parameters, that of their defaults stands there; `+"`gatewayctl profile show ID --param NAME=VALUE`"+` shows the others.

| kind | vendor | model | profile | transport | confidence | unproven | points | used at |
|---|---|---|---|---|---|---|---|---|
`, len(models), points)
	byKind := slices.SortedStableFunc(slices.Values(models), func(a, b model) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Vendor, b.Vendor)) })
	for _, m := range byKind {
		fmt.Fprintf(&b, "| %s | %s | %s | [%s](#%s) | %s | %s | %s | %d | %s |\n", m.Kind, cell(m.Vendor), cell(m.Model), m.ID, m.ID,
			orUnknown(strings.Join(m.Transport, ", ")), m.Confidence, cell(strings.Join(m.Unproven, ", ")), m.Count, strings.Join(m.UsedAt, ", "))
	}
	for _, m := range models {
		m.markdown(&b)
	}
	b.WriteString("\n## Left out\nWhat the sources have and no profile reads.\n\n| profile | what | why |\n|---|---|---|\n")
	for _, l := range out.LeftOut {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", l.Device, cell(l.What), cell(l.Why))
	}
	_, err = io.WriteString(w, b.String())
	return err
}

func (m model) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n%s. %s, %s.\n\n", m.ID, m.name(), m.Zh, m.En)
	item := func(what string, text ...string) {
		for _, t := range text {
			if t != "" {
				fmt.Fprintf(b, "- %s: %s\n", what, line(t))
			}
		}
	}
	if len(m.Unproven) > 0 {
		fmt.Fprintf(b, "- **Unproven: %s**\n", line(strings.Join(m.Unproven, ", ")))
	}
	item("Source, confidence "+m.Confidence, m.Source)
	item("Also", m.Also...)
	item("About the source", m.SourceNote)
	item("The maker's book counts", m.Book)
	item("As it leaves the factory", m.Serial)
	if m.SharesUnit {
		item("Unit address", "it may share it with other devices on the bus")
	}
	for _, p := range m.Params {
		must := "default " + p.Default
		if p.Default == "" {
			must = "gateway.yaml must say it"
		}
		text := fmt.Sprintf("%s, %s: %s (%s)", p.Zh, p.En, strings.Join(p.OneOf, ", "), must)
		if p.Note != "" {
			text += "; " + p.Note
		}
		item("Parameter `"+p.Name+"`", text)
	}
	item("Note", m.Notes...)
	fmt.Fprintf(b, "\n<details><summary>%d points</summary>\n\n| point | 中文 | English | unit | register | printed |\n|---|---|---|---|---|---|\n", m.Count)
	for _, p := range m.Points {
		register := fmt.Sprintf("%s %d %s", p.Table, p.Address, p.Type)
		if p.UnitOffset > 0 {
			register += fmt.Sprintf(", unit +%d", p.UnitOffset)
		}
		if p.Varies {
			register += ", by the parameters"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", p.Name, cell(p.Zh), cell(p.En), p.Unit, register, cell(p.DocAddress))
	}
	b.WriteString("\n</details>\n")
}

func orUnknown(s string) string {
	if s == "" {
		return "?"
	}
	return s
}

// line keeps a text on one line and out of Markdown's way.
func line(s string) string {
	return strings.NewReplacer("\n", " ", "*", `\*`, "<", "&lt;", "[", `\[`).Replace(strings.TrimSpace(s))
}

// cell is line in a table.
func cell(s string) string { return strings.ReplaceAll(line(s), "|", `\|`) }
