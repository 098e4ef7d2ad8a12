package alarm

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxPolls bounds one series: a week at one poll a second, enough for any
// test and too little to hurt.
const maxPolls = 700_000

// poll is one place of a series: what one poll of a point brings.
type poll struct {
	value  float64
	none   bool // polled, no reply
	absent bool // not polled or never sent
	cut    bool // polled while the link is cut: arrives when that ends
}

// series is a point's history in the compact notation of docs/contract.md.
type series struct {
	polls    []poll
	restarts []int // the hub starts anew before the poll of this index
}

// parseSeries reads the notation: 84x20, 60+5x3, _x4, outage:10m,
// cut(84x60), restart, separated by blanks.
func parseSeries(text string, every time.Duration) (series, error) {
	var s series
	err := s.parse(text, every, false)
	return s, err
}

func (s *series) parse(text string, every time.Duration, cut bool) error {
	rest := strings.TrimSpace(text)
	for rest != "" {
		if inner, ok := strings.CutPrefix(rest, "cut("); ok {
			body, after, closed := strings.Cut(inner, ")")
			if !closed || cut {
				return fmt.Errorf("cut( needs one ) and holds no other cut")
			}
			if err := s.parse(body, every, true); err != nil {
				return err
			}
			rest = strings.TrimSpace(after)
			continue
		}
		word, after, _ := strings.Cut(rest, " ")
		rest = strings.TrimSpace(after)
		if err := s.word(word, every, cut); err != nil {
			return err
		}
	}
	return nil
}

func (s *series) word(word string, every time.Duration, cut bool) error {
	if word == "restart" {
		s.restarts = append(s.restarts, len(s.polls))
		return nil
	}
	if d, ok := strings.CutPrefix(word, "outage:"); ok {
		dur, err := time.ParseDuration(d)
		if err != nil || dur <= 0 || cut {
			return fmt.Errorf("%q: write outage: and a duration such as outage:10m, outside of cut()", word)
		}
		n := dur / every
		if dur%every > 0 {
			n++
		}
		return s.add(int(n), func(int) poll { return poll{absent: true} })
	}
	body, times, many := strings.Cut(word, "x")
	n := 1
	if many {
		var err error
		if n, err = strconv.Atoi(times); err != nil || n < 1 {
			return fmt.Errorf("%q: after x comes how many polls, 1 or more", word)
		}
	}
	if body == "_" {
		return s.add(n, func(int) poll { return poll{none: true, cut: cut} })
	}
	first, step := body, "0"
	if i := strings.LastIndexAny(body, "+-"); i > 0 && body[i-1] != 'e' {
		first, step = body[:i], body[i:]
	}
	a, err1 := strconv.ParseFloat(first, 64)
	b, err2 := strconv.ParseFloat(step, 64)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("%q is no part of a series; write 84x20, 60+5x3, _x4, outage:10m, cut(84x60) or restart", word)
	}
	return s.add(n, func(i int) poll { return poll{value: a + float64(i)*b, cut: cut} })
}

func (s *series) add(n int, at func(int) poll) error {
	if n > maxPolls || len(s.polls)+n > maxPolls {
		return fmt.Errorf("the series has more than %d polls", maxPolls)
	}
	for i := range n {
		s.polls = append(s.polls, at(i))
	}
	return nil
}
