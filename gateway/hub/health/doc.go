// Package health tells which link of the chain is broken.
//
// A reading comes from a sensor by a device, a bus, a board, its link, the
// broker and ingest to the store. When a value goes grey, one link of that
// chain is the reason, and everything behind it is merely out of sight: the
// cause of a silence is the highest broken node above the point, and what lies
// below a broken node is unknown, never called broken (docs/health.md has the
// state table).
//
// The package holds no connection and asks nobody: a Watch is given what the
// hub knows (World) and judges it. It remembers only since when each node has
// been as it is. Ingest and store do not silence the screen, since live values
// pass before the queue; they are nodes of their own, and the reason why
// history has a hole.
package health
