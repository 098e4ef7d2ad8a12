// The shell: header, connection, banner, and the view that the path names.
import { api } from "./api";
import { counts, isOpen, learnSites } from "./alarm";
import { add, h, replace, text } from "./dom";
import { clock } from "./format";
import { keep, lang, setLang, t, type Key } from "./lang";
import { Scope } from "./scope";
import { empty } from "./state";
import { store } from "./store";
import { alarms } from "./views/alarms";
import { gateways, health, journal, ledger } from "./views/lists";
import { overview } from "./views/overview";
import { point } from "./views/point";
import { site } from "./views/site";

export type View = (el: HTMLElement, scope: Scope) => void;

/** shaped views are drawn anew when points come or go. */
const shaped = (v: View): View => (el, scope) => {
  v(el, scope);
  let waiting: number | undefined;
  scope.own(store.on("shape", () => {
    // Announcements come in bursts: draw once.
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (!scope.closed) show();
    }, 50);
  }));
};

const nav: [string, Key][] = [["/", "nav.overview"], ["/alarms", "nav.alarms"], ["/journal", "nav.journal"], ["/ledger", "nav.ledger"], ["/gateways", "nav.gateways"], ["/health", "nav.health"]];

/** find is the view of a path; gateway/hub/console serves the same paths. */
function find(path: string): View {
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  switch (parts[0]) {
    case undefined: return shaped(overview);
    case "alarms": return alarms;
    case "journal": return journal;
    case "ledger": return ledger;
    case "gateways": return gateways;
    case "health": return health;
    case "site": return shaped(site(parts[1] ?? ""));
    case "point": return shaped(point(parts.slice(1).join("/")));
  }
  return (el) => replace(el, empty(t("missing.page")), h("p.state", null, h("a", { href: "/" }, t("back"))));
}

const header = h("header.top"), main = h("main", { id: "main", tabindex: "-1" }), footer = h("footer.foot");
let scope = new Scope();

function show(): void {
  scope.close();
  scope = new Scope();
  replace(main);
  find(location.pathname)(main, scope);
  for (const a of header.querySelectorAll("nav a")) {
    const here = a.getAttribute("href") === location.pathname;
    if (here) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
}

function go(path: string): void {
  if (path !== location.pathname + location.search) history.pushState(null, "", path);
  show();
  scrollTo(0, 0);
}

function shell(): void {
  const tally = h("a.counts", { href: "/alarms", "aria-label": t("nav.alarms") });
  const conn = h("span.conn", { role: "status" }), time = h("time.clock");
  const other = lang() === "zh" ? "en" : "zh";
  const dark = document.documentElement.dataset.theme === "dark";
  replace(header,
    h("a.brand", { href: "/" }, t("brand")),
    h("nav", { "aria-label": t("menu") }, nav.map(([path, key]) => h("a", { href: path }, t(key)))),
    tally,
    h("span.link", null, conn, time),
    h("span.menu", null,
      h("button", { type: "button", "data-do": "lang", lang: other, title: t("menu.language"), onclick: () => { setLang(other); shell(); } }, other === "en" ? "English" : "中文"),
      h("button", { type: "button", "data-do": "theme", title: t("menu.theme"), onclick: () => {
        document.documentElement.dataset.theme = dark ? "light" : "dark";
        keep("theme", dark ? "light" : "dark");
        shell();
      } }, t(dark ? "menu.light" : "menu.dark"))));
  unbind.splice(0).forEach((f) => f());
  const tallies = () => {
    counts(tally);
    // A tab in the background tells how many wait.
    const open = store.alarms.filter(isOpen).length;
    document.title = (open ? `(${open}) ` : "") + t("brand");
  };
  const link = () => {
    const state = store.alive ? "alive" : store.ready ? "dead" : "waiting";
    conn.dataset.state = state;
    text(conn, t(("conn." + state) as Key));
    text(time, clock(store.alive || !store.ready ? store.now() : store.lastEvent));
    banner();
  };
  unbind.push(store.on("alarms", tallies), store.on("alive", link), store.on("tick", link));
  tallies();
  link();
  void foot();
  show();
}

const unbind: (() => void)[] = [];
const cover = h("div.dead", { role: "alertdialog", "aria-live": "assertive" });

/** banner covers the page while nothing is heard from the hub. */
function banner(): void {
  const dead = store.ready && !store.alive;
  document.body.classList.toggle("cut", dead);
  if (!dead) {
    cover.remove();
    return;
  }
  const title = h("strong", null, t("dead.title")), what = t("dead.text", { time: clock(store.lastEvent) });
  const box = h("div", null, title, h("p", null, what), h("p", null, t("dead.try", { n: Math.max(1, store.attempts) })));
  if (cover.textContent !== box.textContent) replace(cover, box);
  if (!cover.isConnected) document.body.append(cover);
}

/** foot is one quiet line of how the hub itself is; only what is not well has colour. */
async function foot(): Promise<void> {
  try {
    const list = (await api.health()).components;
    replace(footer, list.map((c) => h("a.component", { href: "/health", "data-state": c.state },
      c.label?.[lang()] || c.label?.en || c.name, " ", h("span", null, t(("health." + c.state) as Key)))));
  } catch {
    replace(footer); // the views say what cannot be read
  }
}

document.addEventListener("click", (e) => {
  const a = (e.target as Element).closest?.("a");
  if (!a || e.defaultPrevented || e.button || e.metaKey || e.ctrlKey || e.shiftKey || a.origin !== location.origin || a.target) return;
  e.preventDefault();
  go(a.pathname + a.search);
});
addEventListener("popstate", show);

add(document.body, [header, main, footer]);
api.sites().then(learnSites, () => undefined).finally(() => {
  shell();
  store.start();
});
setInterval(() => void foot(), 10_000);
