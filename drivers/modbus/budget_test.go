package modbus

import (
	"math"
	"testing"
	"time"

	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
)

func TestBudget(t *testing.T) {
	lib, err := profile.Load(firmwareconfig.FS, "devices")
	if err != nil {
		t.Fatal(err)
	}
	unit := 1
	// xy-md02: two input registers in one request. At 9600 8N1 a character
	// takes 1041.666 us: 8 bytes ask, 5+4 answer, a silence of 3.5
	// characters, 20 ms for the device: 20.5 characters and 20 ms.
	c := Config{
		Name: "climate", RTU: &RTU{Port: "/dev/ttyS9", Baud: 9600, Parity: "none"},
		Devices: []Device{{Name: "room", Profile: profile.Ref{Base: "xy-md02"}, Unit: &unit, Every: 100 * time.Millisecond}},
	}
	b, err := c.Budget(lib, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Loads) != 1 {
		t.Fatalf("%d loads, want 1: %+v", len(b.Loads), b)
	}
	l := b.Loads[0]
	const want = 41354 * time.Microsecond
	if l.Device != "room" || l.Profile != "xy-md02" || l.Points != 2 || l.Requests != 1 || (l.Poll-want).Abs() > time.Millisecond {
		t.Errorf("got %+v, want one request of about %v", l, want)
	}
	if got := float64(l.Poll) / float64(l.Every); math.Abs(b.Share-got) > 1e-9 || b.Share != l.Share {
		t.Errorf("share %v of the bus and %v of its only load, want %v", b.Share, l.Share, got)
	}

	c.Devices[0].Profile.Base = "xy-md0"
	if _, err := c.Budget(lib, 0); err == nil {
		t.Error("a profile that is not known has a budget")
	}
}
