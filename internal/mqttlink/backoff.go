package mqttlink

import "time"

// Backoff returns how long to wait before connecting again after so many
// failures in a row (1 after the first): doubling from about 1 s to 60 s.
// random, in [0, 1), spreads it over the upper half, so that a fleet does not
// return in one instant; it never returns under 1 s or over 60 s.
func Backoff(failures int, random float64) time.Duration {
	const most = 60 * time.Second
	top := most
	if failures < 6 {
		top = 2 * time.Second << max(0, failures-1)
	}
	top = min(top, most)
	return top/2 + time.Duration(random*float64(top/2))
}
