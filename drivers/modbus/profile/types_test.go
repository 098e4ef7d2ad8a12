package profile

import (
	"slices"
	"testing"

	firmwareconfig "luquan/firmware-config"
)

func TestParams(t *testing.T) {
	lib, err := Load(firmwareconfig.FS, "devices")
	if err != nil {
		t.Fatal(err)
	}
	got := lib.Params("remond-water-probe")
	if len(got) != 2 || got[0].Name != "conductivity_unit" || got[0].Default != "uS/cm" ||
		got[1].Name != "probe" || got[1].Default != "" || !slices.Contains(got[1].OneOf, "ph") {
		t.Errorf("got %+v, want conductivity_unit with a default and probe without", got)
	}
	if got := lib.Params("no-such-model"); got != nil {
		t.Errorf("a model that is not there has parameters %+v", got)
	}
}

func TestTypeNames(t *testing.T) {
	for name, typ := range typeNames {
		if got := typ.String(); got != name && name != "bits" {
			t.Errorf("%s calls itself %s", name, got)
		}
	}
	if U16.String() != "u16" || Text.String() != "string" || Type(99).String() != "type 99" {
		t.Errorf("got %s, %s, %s", U16, Text, Type(99))
	}
}
