// Package e2e runs the whole line, plant to pager, against real servers:
// mosquitto, InfluxDB, mbpoll and Chromium. It has tests only. A server that
// is missing skips its test, unless LUQUAN_REAL=1 says that it must be there.
package e2e
