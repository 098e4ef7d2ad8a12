// Package live holds the latest value of every point of the hub's sites and
// tells who asks what changed since.
//
// It is what the console shows and what other programs stream. Nothing in it
// is ever made up: a value keeps the time stamp it was read with, a point
// that was not read shows why, and a row that merely confirms a value counts
// only when no row between the two is missing (docs/contract.md, "Quality").
//
// Readers never hold the feed up. A subscription is a position in the order
// of changes, not a queue: a slow reader costs nothing, gets the latest value
// of each point when it comes back, and is told to go when it stays away.
package live
