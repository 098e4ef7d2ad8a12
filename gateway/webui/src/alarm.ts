// Alarms as every view shows them. Priority is shape, figure and colour;
// acknowledged ones are outlined, unacknowledged ones blink.
import { api, priorities, type Alarm, type Priority } from "./api";
import { add, h, replace, text } from "./dom";
import { age, qualityOf, quantity, when } from "./format";
import { maybe, say, t } from "./lang";
import { href } from "./point";
import { store } from "./store";

const shapes: Record<Priority, string> = { critical: "M2 2h16v16H2z", high: "M10 1.5 19 18H1z", medium: "M10 .8 19.2 10 10 19.2.8 10z", low: "M10 1a9 9 0 1 1 0 18 9 9 0 0 1 0-18z" };
const svg = "http://www.w3.org/2000/svg";

/** mark is the priority's shape with its figure. */
export function mark(p: Priority, kind: "full" | "outline" | "none" = "full"): HTMLElement {
  const s = document.createElementNS(svg, "svg");
  s.setAttribute("viewBox", "0 0 20 20");
  s.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(svg, "path");
  path.setAttribute("d", shapes[p]);
  const figure = document.createElementNS(svg, "text");
  figure.setAttribute("x", "10");
  figure.setAttribute("y", p === "high" ? "16" : "14.4");
  figure.textContent = String(priorities.indexOf(p) + 1);
  s.append(path, figure);
  const el = h("span.mark-" + kind + ".priority", { title: t(("priority." + p) as "priority.low"), "data-priority": p, role: "img", "aria-label": t(("priority." + p) as "priority.low") });
  el.append(s);
  return el;
}

export function isOpen(a: Alarm): boolean {
  return a.state === "unacknowledged" || a.state === "returned_unacknowledged";
}

/** urgent orders a list: unacknowledged first, then by priority, then the latest. */
export function urgent(a: Alarm, b: Alarm): number {
  return Number(isOpen(b)) - Number(isOpen(a)) ||
    priorities.indexOf(a.priority) - priorities.indexOf(b.priority) ||
    Date.parse(b.start) - Date.parse(a.start);
}

/** where names the site, device and point of an alarm for people. */
export function where(name: string): { site: string; device: string; point: string } {
  const [site = "", device = "", point = ""] = name.split("/");
  const p = store.points.get(name);
  return { site: siteName(site), device: p ? say(p.device_label, device) : device, point: p ? say(p.label, point) : point };
}

const siteLabels = new Map<string, { zh?: string; en?: string }>();

export function learnSites(list: { name: string; label: { zh?: string; en?: string } }[]): void {
  for (const s of list) siteLabels.set(s.name, s.label);
}

export function siteName(name: string): string {
  return say(siteLabels.get(name), name);
}

export function valueThen(a: Alarm): string {
  if (typeof a.value === "number") {
    const l = a.limit !== undefined ? ` (${t("alarm.limit")} ${quantity(a.limit, a.unit ?? "")})` : "";
    return quantity(a.value, a.unit ?? "") + l;
  }
  if (typeof a.value === "string") return a.value;
  return a.quality >= 30 ? qualityOf(a.quality) : "";
}

export async function acknowledge(a: Alarm, button?: HTMLButtonElement): Promise<void> {
  if (button) {
    button.disabled = true;
    text(button, t("ack.busy"));
  }
  try {
    await api.acknowledge(a.id);
  } catch (e) {
    notice(t("ack.failed", { text: (e as Error).message }));
  }
  await store.readAlarms();
  if (button?.isConnected) {
    button.disabled = false;
    text(button, t("ack"));
  }
}

let hide: number | undefined;

/** notice tells of a failed action for ten seconds. */
export function notice(s: string): void {
  let el = document.querySelector(".notice");
  if (!el) document.body.append((el = h("div.notice", { role: "alert" })));
  text(el, s);
  clearTimeout(hide);
  hide = setTimeout(() => el.remove(), 10_000);
}

/** place is where, on one line, nothing said twice. */
export function place(name: string): string {
  const w = where(name);
  return [...new Set([w.site, w.device, w.point])].join(" · ");
}

/** row is one alarm: mark, time, what and where, and the button. */
export function row(a: Alarm, short: boolean): HTMLElement {
  const open = isOpen(a);
  const kind = a.state === "unacknowledged" ? "full" : "outline";
  const m = mark(a.priority, kind);
  if (open) m.classList.add("blink");
  const ended = a.cleared ? t("alarm.cleared", { time: when(a.cleared) }) : t("alarm.since", { age: age((store.now() - Date.parse(a.start)) / 1000) });
  const el = h("li.alarm", { "data-id": a.id, "data-state": a.state, "data-priority": a.priority, tabindex: short ? null : "-1" },
    m,
    h("a.alarm-main", { href: href({ name: a.point }) },
      h("span.alarm-text", null, say(a.message, a.rule)),
      h("span.alarm-where", null, place(a.point))),
    h("span.alarm-value", null, valueThen(a)),
    h("span.alarm-time", null, h("span", null, when(a.start)), h("span.muted", null, ended)),
    h("span.alarm-state", { title: a.acked_by ? t("alarm.by", { who: a.acked_by, time: when(a.acked_at) }) : null }, maybe("state.", a.state)));
  if (open) {
    const b = h("button.ack", { type: "button" }, t("ack")) as HTMLButtonElement;
    b.addEventListener("click", () => void acknowledge(a, b));
    el.append(b);
  } else {
    el.append(h("span.ack-space"));
  }
  return el;
}

/** list fills ul with alarms and keeps the selection and the focus. */
export function fill(ul: HTMLElement, alarms: Alarm[], short: boolean): void {
  const held = (document.activeElement as HTMLElement | null)?.closest<HTMLElement>("li.alarm");
  const focused = held && ul.contains(held) ? held.dataset.id : undefined;
  replace(ul, alarms.map((a) => row(a, short)));
  if (focused) ul.querySelector<HTMLElement>(`li[data-id="${CSS.escape(focused)}"]`)?.focus();
}

/** counts are the four tallies at the top right: what holds, and how much nobody has seen. */
export function counts(el: HTMLElement): void {
  const out = priorities.map((p) => {
    const of = store.alarms.filter((a) => a.priority === p);
    const open = of.filter(isOpen).length;
    const active = of.filter((a) => a.state !== "returned_unacknowledged").length;
    const m = mark(p, open ? "full" : of.length ? "outline" : "none");
    if (open) m.classList.add("blink");
    return h("span.count" + (of.length ? "" : ".zero"), { title: t("alarms.counts", { name: t(("priority." + p) as "priority.low"), active, open }) },
      m, h("b", null, of.length ? String(of.length) : "0"));
  });
  replace(el);
  add(el, out);
}
