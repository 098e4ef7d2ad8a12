package webui

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDistIsWhatSrcGives rebuilds in memory and compares.
func TestDistIsWhatSrcGives(t *testing.T) {
	out, err := exec.Command("go", "run", "./build", "--check").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestFS(t *testing.T) {
	html, err := fs.ReadFile(FS, "index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="/([^"]+)"`).FindAllStringSubmatch(string(html), -1) {
		if _, err := fs.Stat(FS, m[1]); err != nil {
			t.Errorf("index.html names %s, which is not there", m[1])
		}
	}
	// A strict policy forbids what is inline or from elsewhere.
	if regexp.MustCompile(`(?i)<style|style=|\son[a-z]+=|<script>|https?://`).Match(html) {
		t.Error("index.html has something inline or from elsewhere")
	}
}

func catalogue(t *testing.T, lang string) map[string]string {
	t.Helper()
	data, err := os.ReadFile("src/lang/" + lang + ".json")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatalf("%s.json: %v", lang, err)
	}
	return m
}

// TestCatalogues compares the two languages with one another and with the
// keys that the sources use.
func TestCatalogues(t *testing.T) {
	zh, en := catalogue(t, "zh"), catalogue(t, "en")
	holes := regexp.MustCompile(`\{\w+\}`)
	for k, z := range zh {
		e, ok := en[k]
		if !ok {
			t.Errorf("%s is missing in en.json", k)
			continue
		}
		hz, he := holes.FindAllString(z, -1), holes.FindAllString(e, -1)
		slices.Sort(hz)
		slices.Sort(he)
		if !slices.Equal(hz, he) {
			t.Errorf("%s: zh fills %v, en %v", k, hz, he)
		}
		if strings.TrimSpace(z) == "" || strings.TrimSpace(e) == "" {
			t.Errorf("%s is empty", k)
		}
	}
	for k := range en {
		if _, ok := zh[k]; !ok {
			t.Errorf("%s is missing in zh.json", k)
		}
	}
	used := regexp.MustCompile(`\bt\("([^"]+)"`)
	sources := ""
	err := filepath.WalkDir("src", func(p string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(p) != ".ts" {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		sources += string(data)
		for _, m := range used.FindAllStringSubmatch(string(data), -1) {
			if _, ok := zh[m[1]]; !ok {
				t.Errorf("%s uses %q, which no catalogue has", p, m[1])
			}
		}
		for _, bad := range []string{"innerHTML", "insertAdjacentHTML", "eval("} {
			if strings.Contains(string(data), bad) {
				t.Errorf("%s uses %s: text must stay text", p, bad)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Keys made of data ("quality.52") are named by their prefix alone.
	made := regexp.MustCompile(`^(conn|priority|state|clock|limit|quality|health|event|kind|level)\.`)
	for k := range zh {
		if !made.MatchString(k) && !strings.Contains(sources, `"`+k+`"`) {
			t.Errorf("nothing uses %s", k)
		}
	}
}

// TestQualitiesHaveWords: each code of docs/contract.md is told in words.
func TestQualitiesHaveWords(t *testing.T) {
	zh := catalogue(t, "zh")
	for _, code := range []string{"0", "20", "21", "30", "31", "40", "50", "51", "52", "53"} {
		if zh["quality."+code] == "" {
			t.Errorf("quality %s has no words", code)
		}
	}
}

// TestLevelsHaveWords: each link of the chain in docs/health.md is told in words.
func TestLevelsHaveWords(t *testing.T) {
	zh := catalogue(t, "zh")
	for _, level := range []string{"sensor", "device", "bus", "board", "link", "broker", "ingest", "store"} {
		if zh["level."+level] == "" {
			t.Errorf("level %s has no words", level)
		}
	}
}
