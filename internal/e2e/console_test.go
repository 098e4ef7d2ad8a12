package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestConsoleShowsThePlant looks at the demo's console with a real browser:
// values move on the screen, the alarm comes up by itself and goes, and the
// trend of a point has its line. Six sites fit a screen of 1366x768. Pictures of
// it are kept with -artifacts; those in the READMEs are such pictures:
//
//	mkdir -p /tmp/pictures && go test ./internal/e2e -run TestConsoleShowsThePlant -artifacts -outputdir /tmp/pictures
//	cp "$(find /tmp/pictures -name overview-zh.png)" "$(find /tmp/pictures -name overview-en.png)" docs/images/
func TestConsoleShowsThePlant(t *testing.T) {
	chromium := need(t, "chromium")
	d := startDemo(t, "--for", "85s")
	base := strings.TrimSuffix(d.api, "/api/v1")
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	alloc, stopAlloc := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))...)
	defer stopAlloc()
	tab, stopTab := chromedp.NewContext(alloc)
	defer stopTab()
	do := func(actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(tab, actions...); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(expression string) func() bool {
		return func() bool {
			ok, err := chromedp.Run(tab, chromedp.Evaluate[bool]("(() => { try { return !!("+expression+") } catch { return false } })()"))
			return ok && err == nil
		}
	}
	text := func(selector string) string {
		t.Helper()
		s, err := chromedp.Run(tab, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	shot := func(name string) {
		t.Helper()
		png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name+".png"), png, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	do(chromedp.EmulateViewport(1440, 900), chromedp.Navigate(base+"/?lang=zh&theme=light"))
	eventually(t, 15*time.Second, "six cards with values", holds(`document.querySelectorAll(".card").length === 6 && document.querySelectorAll(".card .num").length >= 30`))
	for _, lang := range []string{"zh", "en"} {
		do(chromedp.EmulateViewport(1366, 768), chromedp.Navigate(base+"/?lang="+lang+"&theme=light"))
		eventually(t, 10*time.Second, "six cards on a small screen", holds(`document.querySelectorAll(".card .num").length >= 30`))
		if !holds(`document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth`)() {
			t.Errorf("%s: six sites do not fit a screen of 1366x768", lang)
		}
		shot("overview-1366-" + lang)
	}
	do(chromedp.EmulateViewport(1440, 900), chromedp.Navigate(base+"/?lang=zh&theme=light"))
	eventually(t, 10*time.Second, "values", holds(`document.querySelectorAll(".card .num").length >= 30`))
	seen := text("main")
	eventually(t, 10*time.Second, "a value moves on the screen", func() bool { return text("main") != seen })
	eventually(t, 25*time.Second, "the alarm is on the screen", holds(`document.querySelector("main").innerText.includes("一次网供水温度过低")`))
	shot("overview-zh")
	do(chromedp.Navigate(base + "/?lang=en&theme=dark"))
	eventually(t, 10*time.Second, "the alarm in English", holds(`document.querySelectorAll(".card .num").length >= 30 && document.querySelector("main").innerText.includes("Supply temperature to the network is low")`))
	shot("overview-en")
	for _, v := range []struct{ path, name string }{
		{"/site/heating-east", "site-heating"}, {"/site/sewage-west", "site-sewage"}, {"/site/compute-north", "site-computing"},
		{"/site/substation-south", "site-substation"}, {"/site/gas-storage-1", "site-gas"}, {"/site/cold-chain-1", "site-cold"},
		{"/gateways", "gateways"}, {"/ledger", "ledger"}, {"/journal", "journal"}, {"/health", "health"},
	} {
		do(chromedp.Navigate(base + v.path + "?lang=zh&theme=light"))
		eventually(t, 10*time.Second, v.path+" is filled", holds(`document.querySelectorAll("main tbody tr").length > 0`))
		shot(v.name + "-zh")
	}
	do(chromedp.Navigate(base + "/point/heating-east/heat-meter-1/flow_temp?lang=zh&theme=light"))
	eventually(t, 10*time.Second, "the trend is drawn", holds(`!!document.querySelector(".plot canvas")`))
	eventually(t, 40*time.Second, "the alarm has cleared", func() bool { return strings.Contains(d.out.String(), "消除 cleared") })
	shot("point-zh")
	do(chromedp.EmulateViewport(390, 844), chromedp.Navigate(base+"/?lang=zh&theme=dark"))
	eventually(t, 10*time.Second, "the phone's page", holds(`document.querySelectorAll(".num").length > 0`))
	if !holds(`document.documentElement.scrollWidth <= innerWidth`)() {
		t.Error("the phone's page is wider than the phone")
	}
	shot("phone-zh")
}
