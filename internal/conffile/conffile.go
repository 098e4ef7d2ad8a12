// Package conffile reads the project's YAML files strictly. A file is data a
// technician typed on site: every mistake in it is found in one reading and
// told as file:line:col with a sentence; an unknown key is a mistake, not a
// comment. Nothing here knows what any file means.
//
// A document is decoded into a Go struct by the `yaml` tags of its fields (a
// field without a tag is named by its lower-cased name; "-" leaves it out; an
// embedded struct's fields count as the struct's own). Afterwards the owner of
// the file adds what the types could not say, at the node it concerns, with
// Doc.Errorf.
package conffile

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a document: far above any real file, low enough that a hostile
// one cannot hurt.
const (
	maxBytes = 4 << 20
	maxNodes = 200_000
	maxDepth = 64
)

// Path names a node: keys are strings, places in a list ints.
type Path []any

// With returns the path extended by elems; p is not changed.
func (p Path) With(elems ...any) Path {
	return append(p[:len(p):len(p)], elems...)
}

func (p Path) key() string {
	var b strings.Builder
	for _, e := range p {
		fmt.Fprintf(&b, "\x00%v", e)
	}
	return b.String()
}

// Doc is a read document: where each node stands, and what is wrong so far.
// It is not safe for concurrent use.
type Doc struct {
	file    string
	pos     map[string]token.Position
	errs    Errors
	nodes   int
	anchors map[string]ast.Node
	paths   map[ast.Node]Path // of mappings
	structs map[reflect.Type]fields

	broken bool                    // not decoded: what the owner finds missing may well be there
	failed map[token.Position]bool // values that could not be decoded
	meant  map[string]bool         // paths of keys that a misspelt one was taken for
}

// Parse reads data, called file in errors, into v, a pointer to a struct. The
// returned Doc is never nil, so that a caller may add errors of its own and
// show all at once; err is its Err. What could not be decoded is left at its
// zero value. An empty document leaves v as it is.
func Parse(file string, data []byte, v any) (*Doc, error) {
	d := &Doc{
		file: file, pos: map[string]token.Position{}, anchors: map[string]ast.Node{}, paths: map[ast.Node]Path{},
		structs: map[reflect.Type]fields{},
		failed:  map[token.Position]bool{}, meant: map[string]bool{},
	}
	body := d.parse(data)
	if body != nil {
		d.index(body, nil, 0)
		if !d.broken {
			d.decodeInto(v, body)
		}
	}
	return d, d.Err()
}

func (d *Doc) parse(data []byte) ast.Node {
	if len(data) > maxBytes {
		d.fatal(nil, fmt.Sprintf("file has %d bytes, more than the %d a configuration may have", len(data), maxBytes))
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF")) // some editors begin a file with it
	if at, found := notText(data); found {
		d.fatal(at, "this is not plain text in UTF-8; save the file as UTF-8, without other bytes")
		return nil
	}
	if tooNested(data) {
		d.fatal(nil, "brackets are nested far deeper than any configuration needs")
		return nil
	}
	f, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var se *yaml.SyntaxError
		if errors.As(err, &se) && se.Token != nil {
			d.fatal(se.Token.Position, plain(se.Message)+around(data, se.Token.Position.Line))
		} else {
			d.fatal(nil, plain(err.Error()))
		}
		return nil
	}
	var body ast.Node
	for _, doc := range f.Docs {
		if doc.Body == nil {
			continue
		}
		if _, ok := doc.Body.(*ast.CommentGroupNode); ok {
			continue
		}
		if body != nil {
			d.fatal(start(doc.Body), "a second document begins here; keep one document a file")
			return nil
		}
		body = doc.Body
	}
	return body
}

// Err returns everything found so far, in reading order, as Errors; nil when
// there is nothing.
func (d *Doc) Err() error {
	if len(d.errs) == 0 {
		return nil
	}
	return d.errs.sorted()
}

// File returns the name given to Parse.
func (d *Doc) File() string { return d.file }

// Errorf collects an error at the node named by p, or at its nearest parent
// that is in the file. It is left out where it would only follow from a
// mistake that is told already: the document is not valid YAML, the value
// there has the wrong type, or the key is there but misspelt.
func (d *Doc) Errorf(p Path, format string, args ...any) {
	at := d.at(p)
	if d.broken || d.meant[p.key()] && !d.Has(p) || at != nil && d.failed[spot(*at)] {
		return
	}
	d.add(at, fmt.Sprintf(format, args...))
}

// Fail collects err at the node named by p.
func (d *Doc) Fail(p Path, err error) { d.Errorf(p, "%s", err) }

// Has reports whether the file has a node at p.
func (d *Doc) Has(p Path) bool {
	_, ok := d.pos[p.key()]
	return ok
}

// Pos returns the line and column of the node at p or of its nearest parent,
// from 1; 0, 0 in an empty file.
func (d *Doc) Pos(p Path) (line, col int) {
	if at := d.at(p); at != nil {
		return at.Line, at.Column
	}
	return 0, 0
}

func (d *Doc) at(p Path) *token.Position {
	for n := len(p); n >= 0; n-- {
		if pos, ok := d.pos[p[:n].key()]; ok {
			return &pos
		}
	}
	return nil
}

// spot is a position as a key: where, and nothing else.
func spot(at token.Position) token.Position {
	return token.Position{Line: at.Line, Column: at.Column}
}

// fatal collects an error after which nothing is decoded.
func (d *Doc) fatal(at *token.Position, msg string) {
	d.broken = true
	d.add(at, msg)
}

// fail collects an error about the value at n.
func (d *Doc) fail(n ast.Node, msg string) {
	at := start(n)
	if at != nil {
		d.failed[spot(*at)] = true
	}
	d.add(at, msg)
}

func (d *Doc) add(at *token.Position, msg string) {
	if w := wide(msg); w != "" && !strings.HasSuffix(msg, wideHint) {
		msg += "; " + w + wideHint
	}
	e := &Error{File: d.file, Msg: msg}
	if at != nil {
		e.Line, e.Col = at.Line, at.Column
	}
	d.errs = append(d.errs, e)
}

// index notes where every node stands, finds duplicate keys, and bounds the
// document: depth, number of nodes after aliases, no alias of itself.
func (d *Doc) index(n ast.Node, p Path, depth int) {
	if d.nodes++; d.nodes > maxNodes || depth > maxDepth {
		if d.nodes <= maxNodes+1 {
			d.fatal(start(n), "the document is too large or too deep here")
		}
		d.nodes = maxNodes + 1
		return
	}
	if a, ok := n.(*ast.AnchorNode); ok {
		d.index(a.Value, p, depth+1)
		d.anchors[a.Name.GetToken().Value] = a.Value // after: it cannot hold itself
		return
	}
	if a, ok := n.(*ast.AliasNode); ok {
		name := a.Value.GetToken().Value
		target, ok := d.anchors[name]
		if !ok {
			d.fatal(start(n), fmt.Sprintf("alias *%s has no anchor &%s before it; a text that begins with * belongs in quotes", name, name))
			return
		}
		d.index(target, p, depth+1)
		d.pos[p.key()] = *start(n)
		return
	}
	if pos := start(n); pos != nil {
		d.pos[p.key()] = *pos
	}
	d.paths[n] = p
	switch n := n.(type) {
	case *ast.TagNode:
		d.fatal(start(n), "tags such as "+n.Start.Value+" are not used here; write the plain value")
	case *ast.MappingNode:
		seen := map[string]bool{}
		for _, kv := range n.Values {
			d.indexPair(kv, p, depth, seen)
		}
	case *ast.MappingValueNode:
		d.indexPair(n, p, depth, map[string]bool{})
	case *ast.SequenceNode:
		for i, v := range n.Values {
			d.index(v, p.With(i), depth+1)
		}
	}
}

func (d *Doc) indexPair(kv *ast.MappingValueNode, p Path, depth int, seen map[string]bool) {
	key := keyText(kv.Key)
	if _, ok := kv.Key.(*ast.MergeKeyNode); ok {
		d.fatal(start(kv.Key), "merge keys (<<) are not used here; write the keys out")
		return
	}
	if seen[key] {
		d.add(start(kv.Key), fmt.Sprintf("key %q stands here a second time; keep one", key))
		return
	}
	seen[key] = true
	d.index(kv.Value, p.With(key), depth+1)
	if _, null := kv.Value.(*ast.NullNode); null { // an empty value has no place of its own
		d.pos[p.With(key).key()] = *start(kv.Key)
	}
}

// start returns where the node's first character stands.
func start(n ast.Node) *token.Position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if n.IsFlowStyle || len(n.Values) == 0 {
			return n.GetToken().Position
		}
		return start(n.Values[0])
	case *ast.MappingValueNode:
		return start(n.Key)
	}
	if t := n.GetToken(); t != nil {
		return t.Position
	}
	return nil
}

func keyText(k ast.Node) string {
	if t := k.GetToken(); t != nil {
		return t.Value
	}
	return k.String()
}
