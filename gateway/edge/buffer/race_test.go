//go:build race

package buffer

// raced: the race detector makes everything ten times slower.
const raced = true
