package profile_test

import (
	"testing"

	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
)

func library(t testing.TB) *profile.Library {
	t.Helper()
	lib, err := profile.Load(firmwareconfig.FS, "devices")
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

func TestLibrary(t *testing.T) { t.Log(library(t).Names()) }
