package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var readmes = []string{"README.md", "README.zh-CN.md"}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// commands are the indented lines that begin with a command, without comments.
func commands(text string) (list []string) {
	for line := range strings.Lines(text) {
		line, indented := strings.CutPrefix(line, "    ")
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if first, _, _ := strings.Cut(line, " "); indented && slices.Contains([]string{"go", "CGO_ENABLED=0", "scp", "ssh"}, first) {
			list = append(list, line)
		}
	}
	return list
}

// TestReadmesSayTheSame: the same commands in both languages, and among them
// the two that a first user needs and .ci/run runs.
func TestReadmesSayTheSame(t *testing.T) {
	en, zh := commands(readFile(t, readmes[0])), commands(readFile(t, readmes[1]))
	if !slices.Equal(en, zh) {
		t.Errorf("README.md has the commands\n%q\nREADME.zh-CN.md has\n%q", en, zh)
	}
	for _, want := range []string{"go run ./cmd/demo", "go test ./..."} {
		if !slices.Contains(en, want) {
			t.Errorf("README.md does not show %q", want)
		}
	}
	for _, c := range en {
		for _, p := range regexp.MustCompile(`\./cmd/\w+`).FindAllString(c, -1) {
			if _, err := os.Stat(filepath.Join(root, p, "main.go")); err != nil {
				t.Errorf("README.md runs %s: %v", p, err)
			}
		}
	}
}

// TestLinksResolve looks at every relative link and picture of the documents.
func TestLinksResolve(t *testing.T) {
	docs, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"CONTRIBUTING.md", "SECURITY.md"}, readmes...) {
		docs = append(docs, filepath.Join(root, name))
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, doc := range docs {
		data, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", filepath.Base(doc), m[1], err)
			}
		}
	}
}
