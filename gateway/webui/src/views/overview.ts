import { api, priorities, type Point, type Site } from "../api";
import { fill, isOpen, learnSites, mark, urgent } from "../alarm";
import { h, replace, text } from "../dom";
import { say, t } from "../lang";
import { bar, href, value } from "../point";
import type { Scope } from "../scope";
import { empty, failed, loading } from "../state";
import { store } from "../store";

/** What an operator wants first of a device, by kind; the first that the device has. */
const first: Record<string, RegExp[]> = {
  heat_meter: [/^(flow|supply)_temp|^t1/, /^return_temp|^t2/, /^(heat_)?power/, /^flow/],
  pump: [/^flow/, /^head|pressure/, /^speed/],
  power_meter: [/^(p|power|active_power)(_total)?$/],
  level: [/level|depth/],
  water_analyser: [/oxygen|^do\b/, /^ph/, /turbidity|conductivity/],
  ups: [/load/, /charge|capacity/, /runtime|remaining/],
  temp_humidity: [/temp/, /humid/],
};

/** keys are the site's points for its card: those configured; or those that have limits, and then by kind, taking turns among the devices. */
export function keys(site: string, configured: string[], most: number): Point[] {
  const named = configured.map((k) => store.points.get(k)).filter((p): p is Point => !!p);
  if (named.length) return named.slice(0, most);
  const devices = new Map<string, Point[]>();
  for (const p of store.points.values()) {
    if (p.site !== site || !first[p.kind]) continue;
    devices.set(p.device, [...(devices.get(p.device) ?? []), p]);
  }
  const queues = [...devices.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, points]) => {
    const rules = first[points[0]!.kind]!;
    return rules.map((r) => points.find((p) => r.test(p.point))).filter((p): p is Point => !!p);
  });
  const out = [...store.points.values()].filter((p) => p.site === site && p.limits?.length).sort((a, b) => (a.name < b.name ? -1 : 1)).slice(0, most);
  for (let round = 0; out.length < most && queues.some((q) => q.length > round); round++) {
    for (const q of queues) if (q[round] && !out.includes(q[round]!) && out.length < most) out.push(q[round]!);
  }
  return out.sort((a, b) => (a.device < b.device ? -1 : a.device > b.device ? 1 : 0));
}

/** The sites as last read: a view drawn anew starts with them. */
let known: Site[] = [];

export function overview(el: HTMLElement, scope: Scope): void {
  const cards = h("div.cards", null, loading()), side = h("aside.side");
  replace(el, h("div.overview", null, cards, side));
  sideAlarms(side, scope, () => store.alarms.filter(isOpen), t("alarms.open"));

  let drawn = "";
  const counters = new Map<string, (s: Site) => void>();
  const draw = () => {
    if (!store.ready) return; // loading is shown; the first snapshot draws the view anew
    const shape = JSON.stringify(known.map((s) => [s.name, s.label, s.key]));
    if (shape !== drawn) {
      drawn = shape;
      counters.clear();
      replace(cards, known.length ? known.map((s) => card(s, scope, counters)) : empty(t("empty.points"), t("empty.points.hint")));
    }
    for (const s of known) counters.get(s.name)?.(s);
  };
  const read = async () => {
    try {
      known = await api.sites();
      if (scope.closed) return;
      learnSites(known);
      draw();
    } catch (e) {
      if (!drawn && !scope.closed) replace(cards, failed(e, () => void read()));
    }
  };
  if (known.length) draw();
  void read();
  scope.every(3000, () => void read());
  scope.own(store.on("alarms", () => void read()));
}

function card(s: Site, scope: Scope, counters: Map<string, (s: Site) => void>): HTMLElement {
  const tally = h("span.tally"), points = h("b"), boards = h("b"), boardsBox = h("span", null, t("site.boards"), " ", boards);
  const pointsBox = h("span", null, t("site.points"), " ", points);
  counters.set(s.name, (now) => {
    replace(tally, priorities.map((p) => {
      const c = now.alarms[p];
      if (!c || (!c.active && !c.unacknowledged)) return null;
      const m = mark(p, c.unacknowledged ? "full" : "outline");
      if (c.unacknowledged) m.classList.add("blink");
      return h("span.count", null, m, h("b", null, String(Math.max(c.active, c.unacknowledged))));
    }));
    text(points, `${now.good}/${now.points}`);
    pointsBox.classList.toggle("lacking", now.good < now.points);
    text(boards, now.gateways ? `${now.gateways.online}/${now.gateways.total}` : "—");
    boardsBox.classList.toggle("lacking", !!now.gateways && now.gateways.online < now.gateways.total);
  });
  const list = keys(s.name, s.key, s.key.length ? 8 : 6);
  const several = new Set(list.map((p) => p.device)).size > 1;
  return h("section.card", { "data-site": s.name },
    h("h2", null, h("a", { href: "/site/" + s.name }, say(s.label, s.name)), h("span.muted", null, s.name), tally),
    list.length
      ? h("div.keys", null, list.map((p) => h("a.key", { href: href(p) },
          h("span.key-name", null, say(p.label, p.point), several && say(p.device_label, p.device) !== say(p.label, p.point) && h("small", null, say(p.device_label, p.device))),
          scope.show(p.name, value(p.name)),
          scope.show(p.name, bar(p.name)))))
      : empty(t("empty.points")),
    h("p.card-foot", null, pointsBox, boardsBox, h("span", null, t("site.devices"), " ", h("b", null, String(s.devices)))));
}

/** sideAlarms is the column of alarms beside the overview and a site. */
export function sideAlarms(side: HTMLElement, scope: Scope, pick: () => typeof store.alarms, title: string): void {
  const ul = h("ul.alarm-list.short"), more = h("a.more", { href: "/alarms" });
  const count = h("b");
  const body = h("div");
  replace(side, h("h2", null, title, " ", count), body, more);
  const draw = () => {
    const list = pick().sort(urgent);
    text(count, list.length ? String(list.length) : "");
    text(more, t("alarms.more", { n: store.alarms.length }));
    if (!store.alarmsReady) {
      replace(body, store.alarmsProblem ? failed(store.alarmsProblem, () => void store.readAlarms()) : loading());
      return;
    }
    if (!list.length) {
      replace(body, store.alive ? empty(t("empty.alarms"), t("empty.alarms.hint")) : empty(t("dead.title")));
      return;
    }
    if (!ul.isConnected) replace(body, ul);
    fill(ul, list.slice(0, 12), true);
  };
  draw();
  scope.own(store.on("alarms", draw));
  scope.own(store.on("alive", draw));
  scope.every(10_000, draw);
}
