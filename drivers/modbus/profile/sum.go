package profile

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"luquan/internal/conffile"
)

// maxUnitOffset is the most that can be added to the lowest unit address, 1.
const maxUnitOffset = 246

// place reads an address after the parameters were filled in; ok is false when
// it is none, which is told.
func (c *compiler) place(at conffile.Path, text conffile.Scalar) (address uint16, ok bool) {
	if text == "" {
		return 0, false // told where it is required
	}
	before := c.bad
	c.bad = false
	n := c.sum(at.With("address"), "address", text, 1<<16-1)
	ok = !c.bad
	c.bad = c.bad || before
	return uint16(n), ok
}

// sum is the value of text, from 0 to most; 0 when it is none, which is told.
func (c *compiler) sum(at conffile.Path, key string, text conffile.Scalar, most int) int {
	n, err := evaluate(string(text))
	switch {
	case err != nil:
		c.errorf(at, "%s is %q: %s; write a whole number, or a sum of them such as \"50020 + 100*(${meter}-1)\"", key, text, err)
	case n < 0 || n > int64(most):
		is := string(text)
		if is != strconv.FormatInt(n, 10) {
			is = fmt.Sprintf("%q, %d", text, n)
		}
		switch {
		case key == "address" && n > 400_000 && n <= 465_536:
			c.errorf(at, "address is %s, a number as books print it; the protocol address is then %d (write doc_address: %d)", is, n-400_001, n)
		case key == "address" && n > 0:
			c.errorf(at, "address is %s; it is the zero-based protocol address, 0 to %d, not the number 4xxxx of the book", is, most)
		default:
			c.errorf(at, "%s is %s; it is 0 to %d", key, is, most)
		}
	default:
		return int(n)
	}
	return 0
}

// bookNumber is 4x0001 (1) or 0010H (2).
var bookNumber = regexp.MustCompile(`^(?:([0134][xX][0-9]+)|([0-9A-Fa-f]+)[hH])$`)

// Bounds of what evaluate computes: far above any address.
const (
	maxSumText  = 200
	maxSumDepth = 16
	maxSum      = 1 << 31
)

// evaluate computes whole numbers (decimal, or hexadecimal with 0x) with +, -,
// * and parentheses, * before the others.
func evaluate(text string) (int64, error) {
	if len(text) > maxSumText {
		return 0, fmt.Errorf("it is longer than %d characters", maxSumText)
	}
	s := sum{rest: text}
	n, err := s.terms(0)
	if err != nil {
		return 0, err
	}
	if s.next() != 0 {
		return 0, fmt.Errorf("%q does not belong there", s.rest)
	}
	return n, nil
}

// sum is a text being computed.
type sum struct{ rest string }

// next returns the next character after spaces, 0 at the end.
func (s *sum) next() byte {
	s.rest = strings.TrimLeft(s.rest, " ")
	if s.rest == "" {
		return 0
	}
	return s.rest[0]
}

func (s *sum) terms(depth int) (int64, error) {
	n, err := s.factors(depth)
	for err == nil {
		op := s.next()
		if op != '+' && op != '-' {
			break
		}
		s.rest = s.rest[1:]
		var m int64
		if m, err = s.factors(depth); err != nil {
			break
		}
		if op == '-' {
			m = -m
		}
		n, err = bound(n + m)
	}
	return n, err
}

func (s *sum) factors(depth int) (int64, error) {
	n, err := s.factor(depth)
	for err == nil && s.next() == '*' {
		s.rest = s.rest[1:]
		var m int64
		if m, err = s.factor(depth); err == nil {
			n, err = bound(n * m)
		}
	}
	return n, err
}

func (s *sum) factor(depth int) (int64, error) {
	if depth > maxSumDepth {
		return 0, errors.New("it has too many parentheses")
	}
	switch s.next() {
	case 0:
		return 0, errors.New("a number is missing at its end")
	case '-':
		s.rest = s.rest[1:]
		n, err := s.factor(depth + 1)
		return -n, err
	case '(':
		s.rest = s.rest[1:]
		n, err := s.terms(depth + 1)
		if err != nil {
			return 0, err
		}
		if s.next() != ')' {
			return 0, errors.New("a ) is missing")
		}
		s.rest = s.rest[1:]
		return n, nil
	}
	end := strings.IndexAny(s.rest, " +-*()")
	if end < 0 {
		end = len(s.rest)
	}
	word := s.rest[:end]
	if end == 0 {
		return 0, fmt.Errorf("a number is missing before %q", s.rest)
	}
	base, digits := 10, word
	if hex, ok := strings.CutPrefix(strings.ToLower(word), "0x"); ok {
		base, digits = 16, hex
	}
	n, err := strconv.ParseUint(digits, base, 63)
	if errors.Is(err, strconv.ErrRange) {
		return bound(maxSum + 1)
	}
	switch m := bookNumber.FindStringSubmatch(word); {
	case err == nil:
	case m != nil && m[1] != "":
		return 0, fmt.Errorf("%q is a number as books print it, one more than the address on the wire", word)
	case m != nil:
		return 0, fmt.Errorf("%q is hexadecimal as 0x%s", word, m[2])
	default:
		return 0, fmt.Errorf("%q is not a whole number", word)
	}
	s.rest = s.rest[end:]
	return bound(int64(min(n, maxSum+1)))
}

func bound(n int64) (int64, error) {
	if n > maxSum || n < -maxSum {
		return 0, errors.New("it is far too large")
	}
	return n, nil
}
