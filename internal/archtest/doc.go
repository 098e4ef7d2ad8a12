// Package archtest holds the policies of the project as tests: which package
// may import which (the arrows block of docs/architecture.md), that every
// package and exported name is documented, that mains stay thin, and that
// nothing in the tree can write to a plant. It has no code of its own.
package archtest
