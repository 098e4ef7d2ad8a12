package poll

import (
	"slices"
	"time"
)

// The shares of a line's time. What answers has the line; a device that wants
// so much of it that there is not enough for all is held to what is left when
// the smaller ones have theirs. What does not answer shares half of the rest.
const (
	// capacity is what is given out when more than the whole line is wanted:
	// the rest keeps the queue short, and asks the dead.
	capacity = 0.9
	// failing devices have together half of what the others leave, within these bounds
	leastFailing, mostFailing = 0.05, 0.5
)

// level is the most that one of the devices may have of a line of which they
// want the demands: above it are those who want too much, and all together
// have the capacity. It is 1 while there is enough for all.
func level(demands []float64) float64 {
	sum := 0.0
	for _, d := range demands {
		sum += d
	}
	if sum <= 1 {
		return 1
	}
	sorted := slices.Sorted(slices.Values(demands))
	left := capacity
	for i, d := range sorted {
		fair := left / float64(len(sorted)-i)
		if d >= fair {
			return fair
		}
		left -= d
	}
	return 1
}

// used is what the devices then have together.
func used(demands []float64) float64 {
	l, sum := level(demands), 0.0
	for _, d := range demands {
		sum += min(d, l)
	}
	return sum
}

// failingShare is what all devices that fail may have together of a line of
// which those that answer use so much.
func failingShare(used float64) float64 {
	return min(max((1-used)/2, leastFailing), mostFailing)
}

// Load is what one group of one device costs a line.
type Load struct {
	Device string
	Every  time.Duration
	Takes  time.Duration // one poll, answered as usual
	Slow   time.Duration // one poll of which every answer comes at the last moment allowed
	Silent time.Duration // one poll that is not answered
}

// Forecast is what a poller makes of a line with some loads.
type Forecast struct {
	// Share is the part of the line's time that is wanted: above 1 not all
	// periods can be kept.
	Share float64
	// Every is the period that each load then has on average, in the order of
	// the loads: its own if that can be kept.
	Every []time.Duration
	// Late is the most by which a poll of another device comes late because
	// the one in question has the line.
	Late time.Duration
}

// Predict says what becomes of the loads of one bus when every device answers.
func Predict(loads []Load) Forecast { return predict(loads, "", 0) }

// PredictSlow says the same for when one device always answers at the last moment allowed.
func PredictSlow(loads []Load, device string) Forecast {
	loads = slices.Clone(loads)
	var most time.Duration
	for i, l := range loads {
		if l.Device == device {
			loads[i].Takes = l.Slow
			most = max(most, l.Slow)
		}
	}
	return predict(loads, device, most)
}

// PredictSilent says the same for when one device has been silent for long
// enough to be asked as seldom as it gets: Every is then how often.
func PredictSilent(loads []Load, device string) Forecast {
	var others []Load
	var asked Load // the group that is asked for
	for _, l := range loads {
		if l.Device != device {
			others = append(others, l)
		} else if asked.Every == 0 || l.Every < asked.Every {
			asked = l
		}
	}
	f := predict(others, "", 0)
	pause := max(asked.Silent+max(maxPause, asked.Every), time.Duration(float64(asked.Silent)/failingShare(used(demands(others)))))
	f.Share += float64(asked.Silent) / float64(pause)
	f.Late = late(others, asked.Silent)
	every := make([]time.Duration, 0, len(loads))
	i := 0
	for _, l := range loads {
		if l.Device == device {
			every = append(every, pause)
			continue
		}
		every = append(every, max(f.Every[i], without(l.Every, f.Late, pause)))
		i++
	}
	f.Every = every
	return f
}

// predict says what becomes of loads that are all answered; blocker is a
// device one of whose polls takes so long that others may lose slots.
func predict(loads []Load, blocker string, longest time.Duration) Forecast {
	var f Forecast
	byDevice := map[string]float64{}
	for _, l := range loads {
		byDevice[l.Device] += l.share()
	}
	all := demands(loads)
	for _, d := range all {
		f.Share += d
	}
	most := level(all)
	var others []Load
	for _, l := range loads {
		if l.Device != blocker {
			others = append(others, l)
		}
	}
	f.Late = late(others, longest)
	var period time.Duration // between two polls of the blocker
	for _, l := range loads {
		e := l.Every
		if d := byDevice[l.Device]; d > most {
			e = time.Duration(float64(e) * d / most)
		}
		f.Every = append(f.Every, e)
		if l.Device == blocker && (period == 0 || e < period) {
			period = e
		}
	}
	if blocker != "" {
		for i, l := range loads {
			if l.Device != blocker {
				f.Every[i] = max(f.Every[i], without(l.Every, f.Late, period))
			}
		}
	}
	return f
}

func (l Load) share() float64 {
	if l.Every <= 0 {
		return 0
	}
	return float64(l.Takes) / float64(l.Every)
}

// demands are the shares that the devices want, one each.
func demands(loads []Load) (out []float64) {
	at := map[string]int{}
	for _, l := range loads {
		i, ok := at[l.Device]
		if !ok {
			i = len(out)
			at[l.Device] = i
			out = append(out, 0)
		}
		out[i] += l.share()
	}
	return out
}

// late is how long a poll that is due may have to wait for one that takes so long.
func late(loads []Load, takes time.Duration) time.Duration {
	var other time.Duration
	for _, l := range loads {
		other = max(other, l.Takes)
	}
	return takes + other
}

// without is the mean of a period whose slots are lost as long as the line is
// held, once in each pause.
func without(every, held, pause time.Duration) time.Duration {
	lost := held / every
	kept := float64(pause)/float64(every) - float64(lost)
	if lost == 0 || pause <= 0 {
		return every
	}
	if kept < 1 {
		return pause
	}
	return time.Duration(float64(pause) / kept)
}
