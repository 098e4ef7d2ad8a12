package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestGuide follows docs/add-a-device.md as it stands: it writes each file, or
// line of a file, that the guide writes, types each command, and compares what
// is said.
func TestGuide(t *testing.T) {
	doc, err := os.ReadFile("../../docs/add-a-device.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	fence := regexp.MustCompile("(?ms)^```(yaml|console) ?([^\n]*)\n(.*?)^```$")
	commands := 0
	for _, m := range fence.FindAllStringSubmatch(string(doc), -1) {
		if m[1] == "yaml" {
			guideFile(t, filepath.Join(dir, m[2]), m[3])
			continue
		}
		for _, c := range strings.Split("\n"+m[3], "\n$ ")[1:] {
			typed, want, _ := strings.Cut(strings.TrimSuffix(c, "\n")+"\n", "\n")
			line, ok := strings.CutPrefix(typed, "gatewayctl ")
			if !ok {
				t.Fatalf("the guide types %q, which is no gatewayctl", typed)
			}
			commands++
			stdout, stderr, status := run(t, line)
			if fails := strings.HasPrefix(want, "gatewayctl "); (status != 0) != fails {
				t.Errorf("%s: exit status %d, %s%s", typed, status, stdout, stderr)
			}
			if want != "" && stdout+stderr != want {
				t.Errorf("%s says\n%s\nand the guide\n%s", typed, stdout+stderr, want)
			}
		}
	}
	if commands < 7 {
		t.Errorf("%d commands found in the guide", commands)
	}
}

// guideFile writes a file, or its line where the name ends in :line.
func guideFile(t *testing.T, name, text string) {
	t.Helper()
	name, number, one := strings.Cut(name, ":")
	if one {
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(string(data), "\n")
		lines[n-1] = text
		text = strings.Join(lines, "")
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
