// Package profile is the schema of a Modbus device model, its loader and its
// decoder: what stands in which register of which device, and what the words
// found there mean.
//
// A profile is a file firmware-config/devices/<id>.yaml. It states facts, each
// with its source and how far it can be believed; the loader finds every
// mistake at file:line:col and turns source units into the canonical units of
// docs/units.md. What a meter hides behind a setting of its own (the unit of
// its flow, say) is a parameter that gateway.yaml sets.
//
// Decoding is pure: the driver brings words, each with the quality of the
// request it came from, and gets a value or the reason why there is none. A
// sentinel is recognised in the raw word, before any scaling. Numbers are
// scaled exactly: 842 times 0.1 is 84.2, never 84.20000000000001.
package profile
