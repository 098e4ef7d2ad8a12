//go:build !race

package buffer

const raced = false
