package main

import (
	"strings"
	"testing"
	"time"

	"luquan/gateway/hub/console"
	"luquan/gateway/hub/ledger"
)

func TestPrintLedger(t *testing.T) {
	zone := time.FixedZone("", 8*3600)
	at := func(h, m int) time.Time { return time.Date(2026, 1, 5, h, m, 0, 0, zone) }
	q := console.LedgerQuery{Site: "heating-east", From: at(14, 0), To: at(16, 0), ByGateway: true, ByHour: true, Verify: true}
	rows := []ledger.Row{
		{Site: "heating-east", Gateway: "boiler-house-1", From: at(14, 0).UTC(), To: at(15, 0).UTC(), Expected: 3600, Stored: 3600, Duplicates: 50,
			Verified: &ledger.Verified{Ledger: 3600, Store: 3600}},
		{Site: "heating-east", Gateway: "boiler-house-1", From: at(15, 0).UTC(), To: at(16, 0).UTC(), Expected: 3600, Stored: 3580, Quarantined: 1, Lost: 12, Missing: 7,
			Approximate: 7, Reasons: []ledger.Reason{{Reason: "buffer full", Count: 12}}, KnownTo: at(15, 59).UTC(),
			Verified: &ledger.Verified{Ledger: 3580, Store: 3579, OnlyLedger: 1, Differences: []ledger.Difference{{In: "ledger", Gateway: "boiler-house-1", Epoch: 4837201, First: 5000, Last: 5000}}}},
	}
	var out strings.Builder
	if err := printLedger(&out, q, rows, "the running hub"); err != nil {
		t.Fatal(err)
	}
	want := `site heating-east, 2026-01-05 14:00 to 2026-01-05 16:00 +0800; by the running hub

              HOUR          SITE         GATEWAY  EXPECTED  STORED  QUARANTINED  LOST  CLEARED  WAITING  MISSING  TWICE  COMPLETE  IN HISTORY  DIFFER
  2026-01-05 14:00  heating-east  boiler-house-1      3600    3600            0     0        0        0        0     50   100.0 %        3600       0
  2026-01-05 15:00  heating-east  boiler-house-1      3600    3580            1    12        0        0        7      0    99.4 %        3579       1
             total                                    7200    7180            1    12        0        0        7     50    99.7 %        7179       1

lost: 12 by their board's word: buffer full
7 of them have no time stamp here and are placed by their neighbours; some may belong just outside
known only to 2026-01-05 15:59:00: what a board has drawn since, it has not told yet
only in the ledger: boiler-house-1, epoch 4837201, seq 5000 to 5000
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	if err := printLedger(&out, console.LedgerQuery{}, nil, "the running hub"); err != nil || !strings.Contains(out.String(), "nothing is known of it") {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestMoment(t *testing.T) {
	zone := time.FixedZone("", 8*3600)
	now := time.Date(2026, 1, 5, 18, 30, 0, 0, zone)
	for in, want := range map[string]string{
		"2026-01-05 14:00":     "2026-01-05T14:00:00+08:00",
		"2026-01-05T14:00":     "2026-01-05T14:00:00+08:00",
		"2026-01-05":           "2026-01-05T00:00:00+08:00",
		"14:00":                "2026-01-05T14:00:00+08:00",
		"2026-01-05T06:00:00Z": "2026-01-05T06:00:00Z",
	} {
		if got, err := moment("from", in, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: %s, %v, want %s", in, got.Format(time.RFC3339), err, want)
		}
	}
	if at, err := moment("from", "", now); err != nil || !at.IsZero() {
		t.Errorf("nothing: %s, %v", at, err)
	}
}
