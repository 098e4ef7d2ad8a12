package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"luquan/drivers/modbus/profile"
	"luquan/gateway/edge"
)

var update = flag.Bool("update", false, "write the expected output of lint, and docs/devices.md")

// quiet are the files of testdata/lint in which nothing is wrong.
var quiet = map[string]bool{"good": true, "no-word-order": true, "unsigned-temperature": true}

// TestLintGolden lints each broken file of testdata/lint and compares what is
// said with the text beside it: where, what, and the exit status.
func TestLintGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/lint/*.yaml")
	if err != nil || len(files) < 30+len(quiet) {
		t.Fatalf("%d files (%v), want 30 broken ones and more", len(files), err)
	}
	lib, err := edge.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	anyProfile := regexp.MustCompile(`(in |\()profile [a-z0-9-]+`) // whichever built-in one comes first
	spot := regexp.MustCompile(`(?m)^testdata/lint/[a-z0-9-]+\.yaml(:[1-9][0-9]*:[1-9][0-9]*)?: (error|warning|note): .{15,}$`)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			r := lint(lib, []string{file})
			if err := r.print(&out); err != nil {
				t.Fatal(err)
			}
			stdout, verdict := anyProfile.ReplaceAllString(out.String(), "${1}profile ID"), "sound"
			if err := r.verdict(true); err != nil {
				verdict = err.Error()
			}
			got := stdout + verdict + "\n"
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if quiet[name] != (verdict == "sound") {
				t.Errorf("the verdict is %s", verdict)
			}
			for line := range strings.Lines(stdout) {
				if line != "nothing is wrong\n" && !spot.MatchString(strings.TrimSuffix(line, "\n")) {
					t.Errorf("not file:line:col: level: what to do: %s", line)
				}
			}
		})
	}
}

// TestLintLibrary: there is nothing to warn of in what is built in.
func TestLintLibrary(t *testing.T) {
	files, err := filepath.Glob("../../firmware-config/devices/*.yaml")
	if err != nil || len(files) < 7 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	stdout, stderr, status := run(t, "profile lint --strict "+strings.Join(files, " "))
	if status != 0 {
		var bad []string
		for line := range strings.Lines(stdout) {
			if !strings.Contains(line, ": note: ") {
				bad = append(bad, line)
			}
		}
		t.Errorf("exit status %d, %s%s", status, strings.Join(bad, ""), stderr)
	}
}

func TestLintCommand(t *testing.T) {
	var r lintReport
	into(t, "profile lint --json testdata/lint/unit-unknown.yaml testdata/lint/counter-forgotten.yaml", 1, &r)
	if r.Errors != 1 || r.Warnings != 1 || len(r.Findings) != 2 || r.Findings[0].Line != 21 || r.Findings[0].Level != profile.LevelError {
		t.Errorf("got %+v", r)
	}
	r = lintReport{}
	into(t, "profile lint --json testdata/lint/good.yaml", 0, &r)
	if r.Errors+r.Warnings+r.Notes != 0 || r.Findings == nil {
		t.Errorf("got %+v", r)
	}
	for line, want := range map[string]struct {
		status int
		says   string
	}{
		"profile lint testdata/lint/counter-forgotten.yaml":                      {0, "counter: true"},
		"profile lint --strict testdata/lint/counter-forgotten.yaml":             {1, "1 warning, and --strict allows none"},
		"profile lint testdata/lint/good.yaml ./testdata/lint/../lint/good.yaml": {1, "is a profile of the same id"},
		"profile lint none.yaml": {1, "none.yaml: error: there is no such file; check the path"},
		"profile lint testdata":  {1, "this is a folder; name the file in it"},
		"profile lint":           {2, "name the files"},
	} {
		stdout, stderr, status := run(t, line)
		if status != want.status || !strings.Contains(stdout+stderr, want.says) {
			t.Errorf("%s: exit %d, %s%s, want %d and %q", line, status, stdout, stderr, want.status, want.says)
		}
	}
}

// FuzzLint: whatever a file holds, lint says something of it without a panic,
// says errors where the loader does, and nothing twice.
func FuzzLint(f *testing.F) {
	lib, err := edge.Profiles()
	if err != nil {
		f.Fatal(err)
	}
	for _, glob := range []string{"testdata/lint/*.yaml", "../../firmware-config/devices/[a-l]*.yaml"} {
		files, _ := filepath.Glob(glob)
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		findings := lib.Lint("good.yaml", data)
		bad := false
		seen := map[profile.Finding]bool{}
		for _, x := range findings {
			bad = bad || x.Level == profile.LevelError
			if x.Msg == "" || x.File != "good.yaml" || seen[x] {
				t.Fatalf("%+v of\n%s", x, data)
			}
			seen[x] = true
		}
		_, err := profile.Load(fstest.MapFS{"d/good.yaml": {Data: data}}, "d")
		if err != nil && !bad {
			t.Fatalf("lint says nothing, the loader %v, of\n%s", err, data)
		}
	})
}
