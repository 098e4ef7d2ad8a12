// Package edge assembles the board's half of Luquan: the drivers of
// gateway.yaml feed the poller, the poller the queue on flash, the queue the
// uplink. It is the only package that knows both neighbours of each of these
// stages, and the only place where drivers are listed.
package edge
