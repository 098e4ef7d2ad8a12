// The plain lists: gateways, journal, completeness, health.
import { api, type Alarm, type Component, type Gateway, type JournalEntry, type LedgerRow } from "../api";
import { mark, place, siteName, valueThen } from "../alarm";
import { h, replace, type Child } from "../dom";
import { age, when } from "../format";
import { maybe, say, t, type Key } from "../lang";
import { href } from "../point";
import type { Scope } from "../scope";
import { empty, failed, loading } from "../state";
import { store } from "../store";
import { figures } from "../units";
import { causes } from "./chain";

interface Column<T> { head: Key; right?: boolean; cell(x: T): Child }

function list<T>(title: Key, nothing: Key, read: () => Promise<T[]>, columns: Column<T>[], every = 5000) {
  return (el: HTMLElement, scope: Scope): void => {
    const body = h("div.scroll", null, loading());
    replace(el, h("h1", null, t(title)), body);
    let shown = false;
    const draw = async () => {
      try {
        const rows = await read();
        if (scope.closed) return;
        shown = true;
        replace(body, rows.length
          ? h("table.list", null,
              h("thead", null, h("tr", null, columns.map((c) => h(c.right ? "th.r" : "th", null, t(c.head))))),
              h("tbody", null, rows.map((x) => h("tr", null, columns.map((c) => h(c.right ? "td.r" : "td", { "data-head": t(c.head) }, c.cell(x)))))))
          : empty(t(nothing)));
      } catch (e) {
        if (scope.closed) return;
        if (!shown) replace(body, failed(e, () => void draw()));
        else if (!body.querySelector(".warn")) body.prepend(h("p.warn", { role: "alert" }, `${t("error.title")}: ${(e as Error).message}`));
      }
    };
    void draw();
    scope.own(store.on("shape", () => void draw())); // the points' labels came
    scope.every(every, () => void draw());
  };
}

const n = (v: number) => figures(v, 0);
const ago = (at?: string) => (at ? t("age.ago", { age: age((store.now() - Date.parse(at)) / 1000) }) : "—");

export const gateways = list<Gateway>("nav.gateways", "empty.gateways", api.gateways, [
  { head: "col.gateway", cell: (g) => h("b", null, g.gateway) },
  { head: "col.site", cell: (g) => h("a", { href: "/site/" + g.site }, siteName(g.site)) },
  { head: "col.state", cell: (g) => h("span.health", { "data-state": g.online ? "ok" : "fail" }, t(g.online ? "gateway.online" : "gateway.offline")) },
  { head: "col.since", cell: (g) => when(g.since) },
  { head: "col.received", right: true, cell: (g) => ago(g.received) },
  { head: "col.late", right: true, cell: (g) => (g.received ? (g.late < 10 ? Math.round(g.late * 1000) + " ms" : age(g.late)) : "—") },
  { head: "col.held", right: true, cell: (g) => n(g.held) },
  { head: "col.devices", right: true, cell: (g) => n(g.devices) },
  { head: "col.version", cell: (g) => g.version || "—" },
], 3000);

/** A page names its alarm by id alone: rule|point|start. */
async function readJournal(): Promise<JournalEntry[]> {
  const entries = await api.journal();
  const whole = new Map<string, Alarm>();
  for (const e of entries) if (e.alarm) whole.set(e.alarm.id, e.alarm);
  return entries.map((e) => {
    const a = e.alarm ? undefined : whole.get(e.alarm_id ?? "");
    // What the value was when people were told is not known: none is shown.
    return a ? { ...e, alarm: { ...a, value: undefined, quality: 0 } } : e;
  });
}
const part = (e: JournalEntry, i: number) => (e.alarm_id ?? "").split("|")[i] ?? "";
const pointOf = (e: JournalEntry) => e.alarm?.point || part(e, 1);

export const journal = list<JournalEntry>("nav.journal", "empty.journal", readJournal, [
  { head: "col.time", cell: (e) => h("span.nowrap", { title: e.at ? t("journal.learned", { time: when(e.at) }) : null }, when(e.time)) },
  { head: "col.event", cell: (e) => h("span.nowrap", null, maybe("event.", e.kind)) },
  { head: "col.alarm", cell: (e) => (pointOf(e) ? h("span.event", null, e.alarm && mark(e.alarm.priority, "outline"), h("a", { href: href({ name: pointOf(e) }) }, say(e.alarm?.message, e.alarm?.rule || part(e, 0)))) : null) },
  { head: "col.point", cell: (e) => (pointOf(e) ? place(pointOf(e)) : null) },
  { head: "col.value", right: true, cell: (e) => (e.alarm ? valueThen(e.alarm) : "") },
  { head: "col.detail", cell: (e) => [e.by, say(e.detail, "")].filter(Boolean).join(" · ") },
]);

const total = (r: LedgerRow) => (r.last > 0 ? r.last - r.first + 1 : 0);
/** pending came and is not stored yet, nor missing. */
const pending = (r: LedgerRow) => Math.max(0, total(r) - r.stored - r.quarantined - r.lost - r.missing);

export const ledger = list<LedgerRow>("nav.ledger", "empty.ledger", api.ledger, [
  { head: "col.site", cell: (r) => siteName(r.site) },
  { head: "col.gateway", cell: (r) => r.gateway },
  { head: "col.epoch", right: true, cell: (r) => String(r.epoch) },
  { head: "col.sequence", right: true, cell: (r) => `${n(r.first)} – ${n(r.last)}` },
  { head: "col.stored", right: true, cell: (r) => n(r.stored) },
  { head: "col.pending", right: true, cell: (r) => n(pending(r)) },
  { head: "col.quarantined", right: true, cell: (r) => n(r.quarantined) },
  { head: "col.lost", right: true, cell: (r) => n(r.lost) },
  { head: "col.missing", right: true, cell: (r) => h("span", { class: r.missing ? "lacking" : null }, n(r.missing)) },
  // Rounded down: 100 % is said only when nothing at all is missing or lost.
  { head: "col.complete", right: true, cell: (r) => {
    const all = total(r);
    return all > 0 ? (Math.floor(((all - r.missing - r.lost) / all) * 1000) / 10).toFixed(1) + " %" : "—";
  } },
]);

const components = list<Component>("nav.health", "empty.health", async () => (await api.health()).components, [
  { head: "col.component", cell: (c) => h("b", null, say(c.label, c.name)) },
  { head: "col.state", cell: (c) => h("span.health", { "data-state": c.state }, t(("health." + c.state) as Key)) },
  { head: "col.since", cell: (c) => when(c.since) },
  { head: "col.detail", cell: (c) => say(c.detail, "") },
]);

/** health shows the parts of the hub and what is broken on the way to it. */
export const health = (el: HTMLElement, scope: Scope): void => {
  const parts = h("div"), broken = h("section.causes");
  replace(el, parts, broken);
  components(parts, scope);
  causes(broken, scope, "", false);
};
