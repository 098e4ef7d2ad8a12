package console

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"luquan/gateway/alarm"
	"luquan/gateway/telemetry"
)

// browser starts Chromium once for a test and returns a function that opens
// tabs. Everything the pages complain of (an exception, a refused inline
// style, a missing file) fails the test.
func browser(t *testing.T) func() context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("LUQUAN_REAL") == "1" {
			t.Fatal("chromium is not installed, and LUQUAN_REAL=1 asks for it")
		}
		t.Skip("chromium is not installed")
	}
	dir := t.TempDir()
	base, stop := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(stop)
	alloc, stopAlloc := chromedp.NewExecAllocator(base, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(dir),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("lang", "zh-CN"))...)
	t.Cleanup(stopAlloc)
	first, stopFirst := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		if err := chromedp.Cancel(first); err != nil {
			t.Logf("stop the browser: %v", err)
		}
		stopFirst()
	})
	if err := chromedp.Do(first); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return func() context.Context {
		tab, closeTab := chromedp.NewContext(first)
		messages := chromedp.Console(tab)
		var wg sync.WaitGroup
		wg.Go(func() {
			for m, err := range messages {
				if err != nil {
					return
				}
				text := fmt.Sprint(m)
				if strings.Contains(text, "ERR_CONNECTION_REFUSED") || strings.Contains(text, "ERR_INCOMPLETE_CHUNKED") {
					continue // the hub was stopped on purpose
				}
				if m.Type == "error" || m.Type == chromedp.ConsoleException || m.Type == "warning" {
					t.Errorf("the page complains: %s", text)
				}
			}
		})
		t.Cleanup(func() { closeTab(); wg.Wait() })
		return tab
	}
}

func do(t *testing.T, ctx context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// wait asks again and again until the JavaScript expression is true. (Not by
// chromedp.Poll: it evaluates text inside the page, which our policy forbids.)
func wait(t *testing.T, ctx context.Context, expression string, within time.Duration) {
	t.Helper()
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); ; <-tick.C {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("(() => { try { return !!("+expression+") } catch { return false } })()"))
		if ok && err == nil {
			return
		}
		if time.Now().After(end) {
			body, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText.slice(0, 3000)`))
			t.Fatalf("%s: not within %v: %v\npage: %s", expression, within, err, body)
		}
	}
}

func eval[T any](t *testing.T, ctx context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// night is a bench with what an operator may meet: one device silent, one
// stale, an alarm of each look; it runs until the test ends.
func night(t *testing.T) *bench {
	b := newBench(t, nil)
	now := time.Now()
	b.alarms.fill(now)
	b.pollAll(now.Add(-40 * time.Second))
	i, ups := b.find("lift-pump-2"), b.find("ups-1")
	quit := make(chan struct{})
	var wg sync.WaitGroup
	tick := func() {
		for k := range b.devs {
			switch k {
			case i:
				b.poll(k, time.Now(), telemetry.NoReply)
			case ups:
			default:
				b.poll(k, time.Now(), telemetry.Good)
			}
		}
	}
	tick()
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(time.Second):
				tick()
			}
		}
	})
	t.Cleanup(func() { close(quit); wg.Wait() })
	return b
}

// TestViews opens every view in both languages, both themes and both widths,
// looks for what must be there and for what must not overflow, and keeps a
// picture (go test -artifacts).
func TestViews(t *testing.T) {
	open := browser(t)
	b := night(t)
	shots := t.ArtifactDir()
	views := []struct{ name, path, ready string }{
		{"overview", "/", `document.querySelectorAll(".card .key .num").length >= 12`},
		{"site", "/site/sewage-west", `document.querySelectorAll(".device tbody tr").length === 10 && document.querySelectorAll(".causes li").length === 1`},
		{"site-big", "/site/compute-north", `document.querySelectorAll(".device").length === 5`},
		{"point", "/point/sewage-west/sump-level/level", `!!document.querySelector(".plot canvas") && document.querySelectorAll(".chain li[data-state=ok]").length === 8`},
		{"point-silent", "/point/sewage-west/lift-pump-2/speed", `document.querySelector(".chain li[data-state=broken][data-level=device][aria-current]") !== null && document.querySelector(".chain .why").textContent !== ""`},
		{"alarms", "/alarms", `document.querySelectorAll("li.alarm").length === 4`},
		{"gateways", "/gateways", `document.querySelectorAll(".list tbody tr").length === 3`},
		{"journal", "/journal", `document.querySelectorAll(".list tbody tr").length === 8 && document.querySelectorAll(".event .priority").length === 8`},
		{"ledger", "/ledger", `document.querySelectorAll(".list tbody tr").length === 1`},
		{"health", "/health", `document.querySelectorAll(".list tbody tr").length === 2 && document.querySelectorAll(".causes li").length === 2`},
	}
	tab := open()
	for _, size := range [][2]int64{{1440, 900}, {390, 844}} {
		do(t, tab, chromedp.EmulateViewport(size[0], size[1]))
		for _, look := range [][2]string{{"zh", "light"}, {"en", "dark"}, {"zh", "dark"}, {"en", "light"}} {
			for _, v := range views {
				do(t, tab, chromedp.Navigate(fmt.Sprintf("%s%s?lang=%s&theme=%s", b.server.URL, v.path, look[0], look[1])))
				wait(t, tab, v.ready, 10*time.Second)
				if over := eval[float64](t, tab, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
					t.Errorf("%s %v %v: the page is %v px wider than the screen", v.name, look, size, over)
				}
				if over := eval[float64](t, tab, `(n => n.scrollWidth - n.clientWidth)(document.querySelector(".top nav"))`); over > 0 {
					t.Errorf("%s %v %v: %v px of the menu are hidden", v.name, look, size, over)
				}
				if holes := eval[string](t, tab, `(document.body.innerText.match(/undefined|NaN|\[object|null/) ?? [""])[0]`); holes != "" {
					t.Errorf("%s %v: the page shows %q", v.name, look, holes)
				}
				if chinese := eval[bool](t, tab, `/[\u4e00-\u9fff]/.test(document.querySelector("main").innerText)`); chinese != (look[0] == "zh") {
					t.Errorf("%s %v: Chinese on the page: %v", v.name, look, chinese)
				}
				png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
				if err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprintf("%s-%s-%s-%d.png", v.name, look[0], look[1], size[0])
				if err := os.WriteFile(filepath.Join(shots, name), png, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestWatching follows one operator: a value changes on screen, goes bad,
// goes stale, an alarm comes, is acknowledged by keyboard and seen so in a
// second window.
func TestWatching(t *testing.T) {
	open := browser(t)
	b := newBench(t, nil)
	one, two := open(), open()
	row := `document.querySelector('[data-device="sump-level"] tr[data-point="level"]')`
	do(t, one, chromedp.EmulateViewport(1440, 900), chromedp.Navigate(b.server.URL+"/site/sewage-west?lang=zh"))
	wait(t, one, row+` !== null`, 10*time.Second)
	i := b.find("sump-level")
	b.mu.Lock()
	b.devs[i].values[0] = 4.5
	b.mu.Unlock()
	b.poll(i, time.Now(), telemetry.Good)
	wait(t, one, row+`.querySelector(".num").textContent.startsWith("4.")`, 1500*time.Millisecond)
	if p := eval[string](t, one, row+`.querySelector(".value").dataset.priority`); p != "critical" {
		t.Errorf("a value beyond its high-high limit has priority %q", p)
	}
	b.poll(i, time.Now(), telemetry.NoReply)
	wait(t, one, row+`.querySelector(".quality").textContent === "无应答"`, 1500*time.Millisecond)
	if !eval[bool](t, one, row+`.querySelector(".value").classList.contains("struck")`) {
		t.Error("the last value of a silent device is not struck")
	}
	if d := eval[string](t, one, `document.querySelector('[data-device="sump-level"] .device-state').textContent`); !strings.Contains(d, "无应答") {
		t.Errorf("the device says %q", d)
	}
	b.poll(i, time.Now(), telemetry.Good)
	wait(t, one, row+`.querySelector(".quality").textContent === "正常"`, 1500*time.Millisecond)
	// Nothing comes any more: stale within two periods (2 s each) and a little.
	wait(t, one, row+`.querySelector(".value").classList.contains("struck") && `+row+`.querySelector(".quality").textContent === "过时"`, 7*time.Second)

	do(t, one, chromedp.Navigate(b.server.URL+"/alarms?lang=en"))
	do(t, two, chromedp.EmulateViewport(390, 844), chromedp.Navigate(b.server.URL+"/?lang=zh"))
	wait(t, one, `document.body.innerText.includes("No alarms")`, 10*time.Second)
	wait(t, two, `document.querySelector(".side .state") !== null`, 10*time.Second)
	b.alarms.add(alarm.Alarm{Rule: "sump-high", Type: alarm.High, Point: "sewage-west/sump-level/level", Priority: alarm.Critical, State: alarm.Unacknowledged,
		Start: time.Now(), Value: telemetry.FloatValue(4.5), Unit: "m", Message: telemetry.Label{Zh: "集水井液位高", En: "Sump level high"}})
	wait(t, one, `document.querySelector("li.alarm .blink") !== null`, 2*time.Second)
	wait(t, two, `document.querySelector(".side li.alarm .blink") !== null`, 2*time.Second)
	do(t, one, chromedp.KeyEvent("j"), chromedp.KeyEvent("a"))
	wait(t, one, `document.querySelector("li.alarm").dataset.state === "acknowledged" && !document.querySelector(".blink")`, 2*time.Second)
	wait(t, two, `document.querySelector(".side li.alarm") === null`, 2*time.Second)
	// Acknowledged: it still stands, so it is still counted.
	if n := eval[string](t, two, `document.querySelector(".counts .priority[data-priority=critical] + b").textContent`); n != "1" {
		t.Errorf("the count of critical alarms is %q after the acknowledgement", n)
	}
	// The language is switched in place.
	do(t, one, chromedp.Evaluate[chromedp.Void](`document.querySelector("[data-do=lang]").click()`))
	wait(t, one, `document.body.innerText.includes("集水井液位高") && document.documentElement.lang === "zh-CN"`, 2*time.Second)
}

// TestCut stops the hub under an open page: a banner covers it and the values
// are struck; a hub that comes back takes it away.
func TestCut(t *testing.T) {
	open := browser(t)
	b := newBench(t, nil)
	tab := open()
	do(t, tab, chromedp.EmulateViewport(1440, 900), chromedp.Navigate(b.server.URL+"/?lang=zh&theme=light"))
	wait(t, tab, `document.querySelector(".conn").dataset.state === "alive" && document.querySelectorAll(".card .num").length > 10`, 10*time.Second)
	b.stop() // streams end; requests are refused
	addr := b.server.Listener.Addr().String()
	handler := b.server.Config.Handler
	b.server.CloseClientConnections()
	b.server.Close()
	wait(t, tab, `document.querySelector(".dead") !== null && document.body.classList.contains("cut")`, 20*time.Second)
	png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), "cut-zh-light-1440.png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
	if deco := eval[string](t, tab, `getComputedStyle(document.querySelector(".card .num")).textDecorationLine`); deco != "line-through" {
		t.Errorf("values are not struck while the hub is away: %q", deco)
	}
	again := restart(t, addr, handler)
	defer again()
	wait(t, tab, `document.querySelector(".dead") === null && document.querySelector(".conn").dataset.state === "alive"`, 20*time.Second)
}
