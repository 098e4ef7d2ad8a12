// Package stamp decides what time a record was polled at, once and for ever.
// docs/time.md has the rules and why; FORMAT.md beside this file has the bytes
// of the one file it keeps.
//
// When a record is polled, Poll says what the clocks show. Before it is first
// published, Stamp turns that into its final stamp by the best that is known
// by then, and puts the basis of the decision on flash first. What is asked
// again, by this run or a later one, gets the same answer.
//
// What it promises: two records of a series never get one stamp, whatever the
// clocks do; a stamp with clock code 0, 1 or 2 is right within the bounds of
// docs/time.md if the source was; a trusted clock never makes a record wait.
package stamp
