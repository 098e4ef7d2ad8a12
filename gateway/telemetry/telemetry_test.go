package telemetry

import (
	"math"
	"regexp"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	slug := regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	ident := regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	long := strings.Repeat("a", 63)
	names := []string{"", "a", "-", "a-", "-a", "0", "0a", "A", "aB", "a_b", "a-b", "a.b", "a/b", "é", "供热", " a", "a ", "a\n", long, long + "a"}
	for _, s := range names {
		if got, want := ValidName(s), slug.MatchString(s); got != want {
			t.Errorf("ValidName(%q) = %v", s, got)
		}
		if got, want := ValidKind(s), ident.MatchString(s); got != want {
			t.Errorf("ValidKind(%q) = %v", s, got)
		}
	}
	for s, want := range map[string]bool{"flow": true, "flow_q": false, "gateway_x": false, "status": false, "device_status": true, "epoch": false, "quality": true} {
		if ValidPoint(s) != want {
			t.Errorf("ValidPoint(%q) = %v", s, !want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		glob, name string
		want       bool
	}{
		{"", "a/b/c", true},
		{"a/b/c", "a/b/c", true},
		{"*/b/c", "a/b/c", true},
		{"*", "a/b/c", false}, // one level only
		{"*/*/*", "a/b/c", true},
		{"*/heat-exchanger-*/supply_temp", "e/heat-exchanger-1/supply_temp", true},
		{"*/heat-exchanger-*/supply_temp", "e/heat-meter-1/supply_temp", false},
		{"a*b*c", "aXbYc", true},
		{"a*b*c", "aXc", false},
		{"*a*a", "a", false},
		{"a*a", "a", false},
	} {
		if got := Match(tt.glob, tt.name); got != tt.want {
			t.Errorf("Match(%q, %q) = %v", tt.glob, tt.name, got)
		}
	}
}

func TestValues(t *testing.T) {
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if !FloatValue(f).IsZero() {
			t.Errorf("%v is taken for a value", f)
		}
	}
	if FloatValue(math.Copysign(0, -1)) != FloatValue(0) {
		t.Error("the two zeros differ")
	}
	if FloatValue(1) == IntValue(1) || IntValue(-5).Float() != -5 || StringValue("x").Str() != "x" {
		t.Error("classes are mixed up")
	}
	if v := (Value{}); !v.IsZero() || v == FloatValue(0) {
		t.Error("no value is not zero")
	}
}

func TestQualityOrder(t *testing.T) {
	order := []Quality{Good, OutOfRange, Frozen, OverRange, UnderRange, Invalid, Refused, Garbled, NoReply, NotConnected}
	for i, q := range order {
		if i > 0 && order[i-1].Worst(q) != q {
			t.Errorf("%v is not worse than %v", q, order[i-1])
		}
		if q.HasValue() == q.Bad() {
			t.Errorf("%v: a value and bad, or neither", q)
		}
	}
	if q := Quality(25); !q.Uncertain() || q.Bad() || q.String() != "uncertain 25" {
		t.Errorf("unknown code under 30: %v", q)
	}
	if q := Quality(77); q.Uncertain() || !q.Bad() || q.String() != "bad 77" {
		t.Errorf("unknown code over 30: %v", q)
	}
}
