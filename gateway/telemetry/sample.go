package telemetry

import "time"

// Reading is one point of a sample.
type Reading struct {
	Point   string
	Value   Value   // the zero Value when Quality carries none, or when unchanged
	Quality Quality // Good, or why not
}

// Sample is the outcome of polling one group of one device once, successful
// or not. It owns its Readings; nobody changes a Sample once it is handed on.
type Sample struct {
	Device string
	Kind   string
	Group  int
	// Time is the arrival of the last answer, or the final time-out, by the
	// system clock, and carries Go's monotonic reading.
	Time time.Time
	// Status is Good, or the device-wide reason why nothing was read.
	Status Quality
	// Readings has a row for every point that carries a value or a quality
	// that is not Good. A polled point without a row is unchanged within its
	// deadband.
	Readings []Reading
	Tags     []Tag
}

// Record is a sample as it stands in the store: with the board's identity,
// its place in the sequence and its final time stamp.
type Record struct {
	Site, Gateway string
	Epoch, Seq    uint64 // Epoch is 1 to 2^53-1; Seq counts from 1 in it
	Clock         Clock
	Sample        // Time is the final stamp
}

// Gap declares records lost: they will never come.
type Gap struct {
	LostEpoch   uint64
	First, Last uint64
	From, To    time.Time
	Reason      string
}

// EpochEnd says how an earlier epoch ended.
type EpochEnd struct {
	Ended, Last uint64
	Reason      string
}
