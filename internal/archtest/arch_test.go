package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "luquan/"
)

// file is one parsed Go file, with its slash-separated path from the root.
type file struct {
	path string
	ast  *ast.File
	fset *token.FileSet
}

func (f file) dir() string  { return path.Dir(f.path) }
func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }
func (f file) at(p token.Pos) string {
	pos := f.fset.Position(p)
	return fmt.Sprintf("%s:%d:%d", f.path, pos.Line, pos.Column)
}

func parseTree(t *testing.T) []file {
	t.Helper()
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, file{rel, f, fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d Go files found from %s: the test looks in the wrong place", len(files), root)
	}
	return files
}

// arrow is one line of the arrows block.
type arrow struct {
	from string
	to   []string
}

func readArrows(t *testing.T) []arrow {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(doc), "```arrows\n")
	if !ok {
		t.Fatal("docs/architecture.md has no ```arrows block")
	}
	block, _, _ = strings.Cut(block, "```")
	var arrows []arrow
	for line := range strings.Lines(block) {
		from, to, ok := strings.Cut(line, "->")
		if !ok {
			t.Fatalf("arrows line without ->: %q", line)
		}
		arrows = append(arrows, arrow{strings.TrimSpace(from), strings.Fields(to)})
	}
	return arrows
}

// fits reports whether pkg is named by pattern: * is one level, ** any depth.
func fits(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/**"); ok {
		return strings.HasPrefix(pkg, base+"/")
	}
	ok, _ := path.Match(pattern, pkg)
	return ok
}

func allowed(arrows []arrow, from, to string) (bool, string) {
	for _, a := range arrows {
		if fits(a.from, from) {
			return slices.ContainsFunc(a.to, func(p string) bool { return fits(p, to) }), a.from
		}
	}
	return false, ""
}

// free are the packages that test the others and may import them.
var free = []string{"internal/e2e", "internal/archtest", "internal/release"}

func TestImportArrows(t *testing.T) {
	arrows := readArrows(t)
	for _, f := range parseTree(t) {
		if f.isTest() || slices.Contains(free, f.dir()) {
			continue
		}
		for _, imp := range f.ast.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			to, ours := strings.CutPrefix(p, module)
			if !ours {
				continue
			}
			if ok, line := allowed(arrows, f.dir(), to); !ok {
				t.Errorf("%s: %s may not import %s (line %q of the arrows in docs/architecture.md); declare the interface you need instead",
					f.at(imp.Pos()), f.dir(), to, line)
			}
		}
	}
}

func TestArrowsRefuse(t *testing.T) {
	arrows := readArrows(t)
	for _, tt := range []struct {
		from, to string
		want     bool
	}{
		{"gateway/edge", "gateway/hub", false},
		{"gateway/hub", "gateway/edge/buffer", false},
		{"internal/plant", "drivers/modbus", false},
		{"gateway/telemetry", "internal/conffile", false},
		{"gateway/edge", "gateway/edge/buffer", true},
		{"gateway/hub", "gateway/hub/history/influx", true},
		{"drivers/gpio", "drivers", true},
		{"drivers/gpio", "drivers/modbus", false},
		{"gateway/unheard", "gateway/telemetry", false},
	} {
		if got, _ := allowed(arrows, tt.from, tt.to); got != tt.want {
			t.Errorf("%s -> %s: got %v, want %v", tt.from, tt.to, got, tt.want)
		}
	}
}

// owners are the packages that alone may import a library.
var owners = map[string][]string{
	"github.com/eclipse/paho.mqtt.golang":         {"internal/mqttlink"},
	"github.com/goburrow/modbus":                  {"drivers/modbus/bus"},
	"github.com/goburrow/serial":                  {},
	"github.com/mochi-mqtt/server/v2":             {"gateway/hub/broker"},
	"github.com/influxdata/influxdb-client-go/v2": {"gateway/hub/history/influx"},
	"os/signal": {"internal/daemon"},
}

func TestLibraryOwners(t *testing.T) {
	for _, f := range parseTree(t) {
		if f.isTest() || slices.Contains(free, f.dir()) {
			continue
		}
		for _, imp := range f.ast.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			if who, ok := owners[p]; ok && !slices.Contains(who, f.dir()) {
				t.Errorf("%s: only %v may import %s", f.at(imp.Pos()), who, p)
			}
			if p == "C" {
				t.Errorf("%s: no cgo: every binary is static", f.at(imp.Pos()))
			}
		}
	}
}

// writers are the names in goburrow/modbus through which a plant could be changed.
var writers = []string{
	"WriteSingleCoil", "WriteMultipleCoils", "WriteSingleRegister", "WriteMultipleRegisters",
	"ReadWriteMultipleRegisters", "MaskWriteRegister",
	"FuncCodeWriteSingleCoil", "FuncCodeWriteMultipleCoils", "FuncCodeWriteSingleRegister",
	"FuncCodeWriteMultipleRegisters", "FuncCodeReadWriteMultipleRegisters", "FuncCodeMaskWriteRegister",
}

// TestNothingWrites refuses every mention of a Modbus write function outside
// tests: a call, a method value, a constant, an interface that would reach it.
func TestNothingWrites(t *testing.T) {
	for _, f := range parseTree(t) {
		if f.isTest() {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && slices.Contains(writers, id.Name) {
				t.Errorf("%s: %s: the gateway only reads; no code path may write to a device", f.at(id.Pos()), id.Name)
			}
			return true
		})
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	docs, any := map[string]bool{}, map[string]string{}
	for _, f := range parseTree(t) {
		if f.isTest() {
			continue
		}
		any[f.dir()] = f.path
		if f.ast.Doc != nil && len(strings.TrimSpace(f.ast.Doc.Text())) > 20 {
			docs[f.dir()] = true
		}
	}
	for dir, p := range any {
		if !docs[dir] {
			t.Errorf("%s: package %s has no doc comment; say what it promises", p, dir)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, f := range parseTree(t) {
		if f.isTest() || f.ast.Name.Name == "main" {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc == nil {
					t.Errorf("%s: %s has no doc comment", f.at(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					checkSpec(t, f, d, s)
				}
			}
		}
	}
}

func checkSpec(t *testing.T, f file, d *ast.GenDecl, s ast.Spec) {
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
			t.Errorf("%s: type %s has no doc comment", f.at(s.Pos()), s.Name.Name)
		}
	case *ast.ValueSpec:
		for _, n := range s.Names {
			if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
				t.Errorf("%s: %s has no doc comment", f.at(s.Pos()), n.Name)
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if s, ok := typ.(*ast.StarExpr); ok {
		typ = s.X
	}
	if g, ok := typ.(*ast.IndexExpr); ok {
		typ = g.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported() && !implementsWellKnown(d.Name.Name)
}

// implementsWellKnown names methods whose meaning is fixed by the standard library.
func implementsWellKnown(name string) bool {
	return slices.Contains([]string{"Error", "Unwrap", "String", "Len", "Less", "Swap", "MarshalJSON", "UnmarshalJSON", "ServeHTTP"}, name)
}

func TestMainsAreThin(t *testing.T) {
	mains := 0
	for _, f := range parseTree(t) {
		if path.Base(f.path) != "main.go" || !strings.HasPrefix(f.path, "cmd/") {
			continue
		}
		mains++
		if n := f.fset.File(f.ast.Pos()).LineCount(); n > 60 {
			t.Errorf("%s has %d lines; a main is a translation of at most 60", f.path, n)
		}
	}
	if mains == 0 {
		t.Skip("no commands yet")
	}
}

func TestTopLevelFolders(t *testing.T) {
	want := []string{"gateway", "drivers", "firmware-config", "cmd", "systemd", "go.mod", "go.sum", "README.md", "README.zh-CN.md",
		"CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "docs", "internal"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(want, e.Name()) {
			t.Errorf("%s at the top level: docs/architecture.md lists what may stand there", e.Name())
		}
	}
}
