// Package console serves the hub's JSON API, its event stream and the pages
// that operators watch, as docs/contract.md lists them ("HTTP API of the
// hub"). The pages use this API only; so may any other program.
//
// GET never changes state. What changes state is POST and refuses requests
// that a browser sends from another site. Input is bounded and checked:
// a wrong parameter is a sentence with a hint, never a guess. Times are
// RFC 3339 in UTC, ages and periods seconds.
//
// The package knows its neighbours by the small interfaces and functions in
// Options; the hub's assembly adapts them.
package console
