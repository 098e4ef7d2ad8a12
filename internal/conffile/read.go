package conffile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// Read returns the bytes of a configuration file. Its error is an *Error that
// says in one sentence why the file cannot be had.
func Read(file string) ([]byte, error) {
	fail := func(format string, args ...any) ([]byte, error) {
		return nil, &Error{File: file, Msg: fmt.Sprintf(format, args...)}
	}
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail("there is no such file; check the path")
	case errors.Is(err, fs.ErrPermission):
		return fail("this user may not reach the file; check the rights of its folders")
	case err != nil:
		return fail("cannot be read: %v", bare(err))
	case info.IsDir():
		return fail("this is a folder; name the file in it")
	case !info.Mode().IsRegular():
		return fail("this is a device or a pipe, not a file")
	case info.Size() > maxBytes:
		return fail("the file has %d bytes, more than the %d a configuration may have", info.Size(), maxBytes)
	}
	data, err := os.ReadFile(file)
	if err == nil && len(bytes.TrimSpace(data)) == 0 {
		return fail("the file is empty")
	}
	if errors.Is(err, fs.ErrPermission) {
		return fail("this user may not read the file; check its owner and rights")
	}
	if err != nil {
		return fail("cannot be read: %v", bare(err))
	}
	return data, nil
}

// bare is the reason in err without the path, which is told already.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// notText finds the first byte that is no UTF-8 text.
func notText(data []byte) (at *token.Position, found bool) {
	at = &token.Position{Line: 1, Column: 1}
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		if r == utf8.RuneError && n == 1 || r < ' ' && r != '\n' && r != '\r' && r != '\t' {
			return at, true
		}
		at.Column++
		if r == '\n' {
			at.Line, at.Column = at.Line+1, 1
		}
		data = data[n:]
	}
	return nil, false
}

// tooNested guards the YAML library, which takes quadratic time over nested
// brackets. It counts those in quotes and comments too, hence its wide bound.
func tooNested(data []byte) bool {
	depth, inline := 0, 0
	for i, c := range data {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '\n':
			inline = 0
		case '-', '?':
			if i+1 < len(data) && data[i+1] == ' ' {
				inline++
			}
		}
		if depth > 1000 || inline > 1000 {
			return true
		}
	}
	return false
}

// syntax says in a technician's words what the YAML library says in its own.
var syntax = []struct{ theirs, ours string }{
	{"found character '\t'", "a tab stands here; indent with spaces"},
	{"mapping value is not allowed", "this line does not fit its neighbours: indent lines of one list or mapping alike, and put a text with \": \" in it in quotes"},
	{"non-map value is specified", "this line is no key: value; is the colon, or the space after it, missing?"},
	{"flow map content", "the { here is not closed by a }, or the keys in it lack a comma"},
	{"',' or '}' must be specified", "a { here, or before, is not closed by a }, or a comma is missing in it"},
	{"',' or ']' must be specified", "the [ here is not closed by a ], or a comma is missing in it"},
	{"could not find map value", "the { here is not closed by a }, or a key in it has no value"},
	{"flow mapping end token", "the { here is not closed by a }"},
	{"end token '}'", "the { here is not closed by a }"},
	{"end token ']'", "the [ here is not closed by a ]"},
	{"map key-value is pre-defined", "this line does not fit those before it: a quote may be left open, or it is indented too far"},
	{"unexpected key name", "this line is no key: value; is the space after the colon, or after the dash, missing?"},
	{"value is not allowed in this context", "this line does not fit its neighbours: indent lines of one list or mapping alike"},
	{"could not find end character of", "the quote that opens here is not closed"},
}

func plain(msg string) string {
	for _, m := range syntax {
		if strings.Contains(msg, m.theirs) {
			return "not valid YAML: " + m.ours
		}
	}
	return "not valid YAML: " + firstLine(msg)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// wideHint ends a sentence about full-width characters.
const wideHint = " stands there, the wide form of a Chinese keyboard; type the plain one"

// wide returns the first full-width sign, digit or blank in text that YAML and
// numbers know in their plain form only; "" when there is none.
func wide(text string) string {
	for _, r := range text {
		switch {
		case r == '：' || r == '，' || r == '｛' || r == '｝' || r == '［' || r == '］' || r == '％' || r == '．' || r == '／' || r == '－' || r >= '０' && r <= '９' || r == '“' || r == '”':
			return string(r)
		case r == '\u3000' || r == '\u00a0':
			return "a wide or hard blank"
		}
	}
	return ""
}

// around ends a sentence about a line that is not valid YAML with what may be
// the reason.
func around(data []byte, line int) string {
	var text string
	for l := range strings.Lines(strings.ReplaceAll(string(data), "\r\n", "\n")) {
		if line--; line == 0 {
			text = l
			break
		}
	}
	if w := wide(text); w != "" {
		return "; " + w + wideHint
	}
	if i := strings.Index(text, "${"); i > 0 && text[i-1] == ' ' {
		return "; a text with ${...} belongs in quotes"
	}
	return ""
}
