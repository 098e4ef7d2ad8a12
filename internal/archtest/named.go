//go:build named

package archtest

// The libraries that the owner named stay pinned in go.mod, also while the
// stage that uses one is not written yet. Nothing builds with this tag.
import (
	_ "periph.io/x/conn/v3"
)
