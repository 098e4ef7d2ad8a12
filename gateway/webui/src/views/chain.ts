// Which link of the chain from sensor to store is broken: the one cause of each silence.
import { api, type HealthNode, type PointHealth, type Silences } from "../api";
import { siteName } from "../alarm";
import { h, replace, text } from "../dom";
import { age, when } from "../format";
import { lang, say, t, type Key } from "../lang";
import type { Scope } from "../scope";
import { failed } from "../state";
import { store } from "../store";

const word = (level: string) => t(("level." + level) as Key);

/** named is what a broken node is called, and where it is. */
function named(n: HealthNode): [string, string] {
  const site = n.site ? siteName(n.site) : "";
  const device = n.device && [...store.points.values()].find((p) => p.site === n.site && p.device === n.device);
  const where = (...parts: (string | undefined)[]) => parts.filter(Boolean).join(" · ");
  switch (n.level) {
    case "sensor": return [say(n.label, n.point ?? ""), where(site, device ? say(device.device_label, n.device!) : n.device)];
    case "device": return [say(n.label, n.device ?? ""), where(site, n.bus, n.gateway)];
    case "bus": return [n.bus ?? "", where(site, n.gateway)];
    case "board": case "link": case "ingest": return [n.gateway ?? "", site];
  }
  return [word(n.level), ""];
}

/** target is the view on which a node's points are seen. */
function target(n: HealthNode): string | null {
  if (n.level === "sensor") return `/point/${n.site}/${n.device}/${n.point}`;
  return n.site ? "/site/" + n.site : null;
}

const since = (n: HealthNode) => (n.since ? h("span.nowrap", { title: when(n.since) }, age((store.now() - Date.parse(n.since)) / 1000)) : null);

/** causes keeps the list of what is broken, of one site or of all. */
export function causes(el: HTMLElement, scope: Scope, site: string, quiet: boolean): void {
  let last = "";
  const draw = async () => {
    let s: Silences;
    try {
      s = await api.silences(site);
    } catch (e) {
      if (!scope.closed && !quiet) replace(el, failed(e, () => void draw()));
      return;
    }
    if (scope.closed) return;
    const seen = JSON.stringify([s.causes, s.silent, s.waiting, lang(), Math.floor(store.now() / 10_000)]);
    if (seen === last) return;
    last = seen;
    const list = s.causes ?? [];
    el.hidden = quiet && !list.length;
    replace(el,
      h("h2", null, t("causes.title"), h("span.muted", null, s.silent ? t("causes.silent", { n: s.silent }) : t("causes.none")),
        s.waiting ? h("span.muted", null, t("causes.waiting", { n: s.waiting })) : null),
      h("ul", null, list.map((n) => {
        const [name, where] = named(n);
        const to = target(n);
        return h("li", { "data-level": n.level },
          h("span.level", null, word(n.level)),
          h("b", null, to ? h("a", { href: to }, name) : name),
          h("span.muted.where", null, where),
          h("span.why", null, say(n.why, "")),
          h("span.silent", null, n.silent ? t("causes.silent", { n: n.silent }) : ""),
          since(n));
      })),
      s.more ? h("p.muted", null, t("causes.more", { n: s.more })) : null);
  };
  void draw();
  scope.every(3000, () => void draw());
}

const sign: Record<string, string> = { ok: "✓", broken: "✕", unknown: "?" };

/** chain keeps the eight links of one point, and why it has no value. */
export function chain(name: string, scope: Scope): HTMLElement {
  const links = h("ol"), why = h("p.why");
  const el = h("div.chain", { role: "group", "aria-label": t("chain.title") }, h("h2", null, t("chain.title")), links, why);
  const draw = async () => {
    let p: PointHealth;
    try {
      p = await api.chain(name);
    } catch {
      el.hidden = true; // an older hub, or a point that went
      return;
    }
    if (scope.closed) return;
    el.hidden = false;
    el.dataset.state = p.state;
    replace(links, p.chain.map((n) => h("li", { "data-state": n.state, "data-level": n.level, "aria-current": n.level === p.cause?.level ? "true" : null,
      title: [say(n.why, ""), n.since && when(n.since)].filter(Boolean).join(" · ") || null },
      h("span.sign", null, sign[n.state] ?? "?"), h("span", null, word(n.level)))));
    const waits = !p.cause && p.state === "unknown" ? p.chain.find((n) => n.state === "unknown") : undefined;
    const n = p.cause ?? waits;
    text(why, n ? `${word(n.level)}${named(n)[0] && named(n)[0] !== word(n.level) ? " " + named(n)[0] : ""}: ${say(n.why, "")}${n.since ? ` (${age((store.now() - Date.parse(n.since)) / 1000)})` : ""}` : "");
  };
  void draw();
  scope.every(3000, () => void draw());
  return el;
}
