package conffile

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Scalar holds the text of any scalar as it was written: for keys whose value
// may be a number or a word.
type Scalar string

// ScalarUnmarshaler is for types that accept a plain scalar. A struct that
// implements it (on its pointer) accepts a mapping as well, a slice a list.
type ScalarUnmarshaler interface {
	// UnmarshalScalar sets the receiver from the scalar's text; its error is
	// shown at the scalar's place and should say what is accepted.
	UnmarshalScalar(text string) error
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	scalarType   = reflect.TypeFor[Scalar]()
)

func (d *Doc) decodeInto(v any, n ast.Node) {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		panic(fmt.Sprintf("BUG: conffile.Parse into %T, want a pointer", v))
	}
	d.decode(n, rv.Elem())
}

func (d *Doc) resolve(n ast.Node) ast.Node {
	for {
		switch a := n.(type) {
		case *ast.AnchorNode:
			n = a.Value
		case *ast.AliasNode:
			n = d.anchors[a.Value.GetToken().Value]
		default:
			return n
		}
	}
}

func (d *Doc) decode(n ast.Node, v reflect.Value) {
	at := n
	n = d.resolve(n)
	if _, null := n.(*ast.NullNode); null {
		return // an empty value is an absent one
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.decode(n, v.Elem())
		return
	}
	text, isScalar := scalarText(n)
	if u, ok := v.Addr().Interface().(ScalarUnmarshaler); ok && (isScalar || v.Kind() != reflect.Struct && v.Kind() != reflect.Slice) {
		if !isScalar {
			d.fail(at, "want a single value here, not "+shape(n))
		} else if err := u.UnmarshalScalar(text); err != nil {
			d.fail(at, err.Error())
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.decodeStruct(n, v)
	case reflect.Map:
		d.decodeMap(n, v)
	case reflect.Slice:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			d.fail(at, "want a list here ([a, b] or lines that begin with -), not "+shape(n))
			return
		}
		out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
		for i, e := range seq.Values {
			d.decode(e, out.Index(i))
		}
		v.Set(out)
	default:
		if !isScalar {
			d.fail(at, fmt.Sprintf("want %s here, not %s", want(v.Type()), shape(n)))
			return
		}
		if err := setScalar(v, n, text); err != nil {
			d.fail(at, err.Error())
		}
	}
}

func pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}, true
	}
	return nil, false
}

func (d *Doc) decodeStruct(n ast.Node, v reflect.Value) {
	known, ok := d.structs[v.Type()]
	if !ok {
		known = fieldsOf(v.Type())
		d.structs[v.Type()] = known
	}
	kvs, ok := pairs(n)
	if !ok {
		names := known.names
		if len(d.paths[n]) == 0 {
			names = nil // a file of something else altogether
		}
		d.fail(n, wantKeys(n, names))
		return
	}
	for _, kv := range kvs {
		key := keyText(kv.Key)
		idx, ok := known.index[key]
		if !ok {
			msg := fmt.Sprintf("unknown key %q", key)
			if _, null := kv.Value.(*ast.NullNode); null && inBraces(n) && wide(key) == "" {
				msg = fmt.Sprintf("%q is no key: a text with a comma in it belongs in quotes, and decimals have a point (0.1)", key)
			} else if near := Nearest(key, known.names); near != "" && len(key) > 2 {
				msg += fmt.Sprintf("; did you mean %q?", near)
				d.meant[d.paths[n].With(near).key()] = true
			} else {
				msg += "; known here: " + strings.Join(known.names, ", ")
			}
			d.add(start(kv.Key), msg)
			continue
		}
		d.decode(kv.Value, v.FieldByIndex(idx))
	}
}

// inBraces reports whether the mapping is written {a: 1, b: 2}.
func inBraces(n ast.Node) bool {
	m, ok := n.(*ast.MappingNode)
	return ok && m.IsFlowStyle
}

// wantKeys says that keys and values belong where n stands, and which: names,
// where they are few.
func wantKeys(n ast.Node, names []string) string {
	example := "key: value"
	if len(names) > 0 && len(names) <= 6 {
		example = "{" + strings.Join(names, ": ..., ") + ": ...}"
	}
	msg := "want keys and values here (" + example + "), not " + shape(n)
	if text, ok := scalarText(n); ok && wide(text) != "" {
		msg += "; " + wide(text) + wideHint
	}
	return msg
}

func (d *Doc) decodeMap(n ast.Node, v reflect.Value) {
	kvs, ok := pairs(n)
	if !ok {
		d.fail(n, wantKeys(n, nil))
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(kvs))
	texts := map[any]string{} // of the keys as they were written
	for _, kv := range kvs {
		k := reflect.New(v.Type().Key()).Elem()
		if err := setScalar(k, kv.Key, keyText(kv.Key)); err != nil {
			d.add(start(kv.Key), "key "+err.Error())
			continue
		}
		if was, twice := texts[k.Interface()]; twice && was != keyText(kv.Key) { // alike ones are told
			d.add(start(kv.Key), fmt.Sprintf("key %q is %v, and so is %q before it; keep one", keyText(kv.Key), k.Interface(), was))
			continue
		}
		texts[k.Interface()] = keyText(kv.Key)
		e := reflect.New(v.Type().Elem()).Elem()
		d.decode(kv.Value, e)
		out.SetMapIndex(k, e)
	}
	v.Set(out)
}

// fields are the keys of a struct type.
type fields struct {
	index map[string][]int // as reflect.StructField has it
	names []string         // in order of declaration
}

func fieldsOf(t reflect.Type) fields {
	out := fields{index: map[string][]int{}}
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() || f.Anonymous {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		out.index[name] = f.Index
		out.names = append(out.names, name)
	}
	return out
}

// scalarText returns the text of a scalar as it was written, quotes and
// indentation of blocks undone.
func scalarText(n ast.Node) (string, bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.LiteralNode:
		return s.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func setScalar(v reflect.Value, n ast.Node, text string) error {
	if v.Type() == durationType {
		dur, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration; write for example 500ms, 10s, 5m or 2h", text)
		}
		v.SetInt(int64(dur))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		if _, isString := n.(*ast.StringNode); !isString && v.Type() != scalarType {
			if _, isBlock := n.(*ast.LiteralNode); !isBlock {
				// A bare 0123 or yes would have lost its spelling in other readers; here the text stands.
				v.SetString(text)
				return nil
			}
		}
		v.SetString(text)
	case reflect.Bool:
		switch text {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(text, 0, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		if v.OverflowInt(i) {
			return fmt.Errorf("%s is too large here", text)
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		i, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number from 0 up", text)
		}
		if v.OverflowUint(i) {
			return fmt.Errorf("%s is too large here", text)
		}
		v.SetUint(i)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("%q is not a number", text)
		}
		v.SetFloat(f)
	default:
		panic(fmt.Sprintf("BUG: conffile cannot decode into %s", v.Type()))
	}
	return nil
}

func want(t reflect.Type) string {
	if t == durationType {
		return "a duration such as 10s"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

func shape(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys and values"
	case *ast.SequenceNode:
		return "a list"
	}
	return "a single value"
}
