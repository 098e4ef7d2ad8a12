package e2e

import (
	"encoding/json"
	"os"
	"testing"

	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
)

// TestConsoleKnowsEveryKind: a device of the library is called by its kind in
// both languages of the console.
func TestConsoleKnowsEveryKind(t *testing.T) {
	lib, err := profile.Load(firmwareconfig.FS, "devices")
	if err != nil {
		t.Fatal(err)
	}
	for _, lang := range []string{"zh", "en"} {
		data, err := os.ReadFile("../../gateway/webui/src/lang/" + lang + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var words map[string]string
		if err := json.Unmarshal(data, &words); err != nil {
			t.Fatal(err)
		}
		for _, id := range lib.Names() {
			p := lib.Forms(id)[0]
			if words["kind."+p.Kind] == "" {
				t.Errorf("%s.json has no kind.%s, which %s is", lang, p.Kind, id)
			}
		}
	}
}
