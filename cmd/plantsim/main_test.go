package main

import (
	"context"
	"strings"
	"testing"
)

// TestSpeedIsOneToAThousand: no other speed starts a plant.
func TestSpeedIsOneToAThousand(t *testing.T) {
	for _, speed := range []string{"0", "-3", "0.5", "1001", "NaN"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a plant that starts all the same ends at once, without an error
		cmd := command()
		cmd.SetArgs([]string{"--speed", speed, "--port-base", "0", "--dir", t.TempDir()})
		cmd.SetOut(&strings.Builder{})
		cmd.SetErr(&strings.Builder{})
		if err := cmd.ExecuteContext(ctx); err == nil || !strings.Contains(err.Error(), "choose 1 to 1000") {
			t.Errorf("--speed %s: %v", speed, err)
		}
	}
}
