// What is shown of a point, the same on every view: value with unit, bar,
// age and quality. Each returns its element and a function that brings it up
// to date; scope.ts runs that function at each change and each second.
import type { Limit, Point, Priority } from "./api";
import { h, replace, text } from "./dom";
import { age, doubt, plain, pointAge, quality, shown, stale } from "./format";
import { t } from "./lang";
import { store } from "./store";
import { bounds } from "./units";

export interface Widget { el: HTMLElement; update(): void }

export function href(p: { name: string }): string {
  return "/point/" + p.name.split("/").map(encodeURIComponent).join("/");
}

const order: Record<Priority, number> = { critical: 0, high: 1, medium: 2, low: 3 };

/** violated is the most urgent limit that a good value lies beyond. */
export function violated(p: Point): Limit | undefined {
  const v = p.value;
  if (typeof v !== "number") return undefined;
  return p.limits
    ?.filter((l) => (l.kind.startsWith("high") ? v > l.value : v < l.value))
    .sort((a, b) => order[a.priority] - order[b.priority])[0];
}

/** value shows the number and its unit; what is not good is hatched and, when it is old, struck. */
export function value(name: string, tag = "span.value"): Widget {
  const num = h("span.num"), unit = h("span.unit"), note = h("span.note");
  const el = h(tag, null, h("span.pair", null, num, unit), note);
  let seen = "";
  let fade: number | undefined;
  return {
    el,
    update() {
      const p = store.points.get(name);
      if (!p) return;
      const d = doubt(p), old = stale(p);
      const v = p.value ?? p.last?.value ?? null;
      const s = shown(p, v);
      text(num, s.text);
      text(unit, s.unit);
      el.classList.toggle("struck", (old || d === "bad") && v !== null);
      el.classList.toggle("doubt", d === "uncertain");
      el.classList.toggle("none", v === null);
      el.classList.toggle("texty", typeof v === "string" || !!p.enum || !!p.bits);
      const limit = d === "bad" || old ? undefined : violated(p);
      el.dataset.priority = limit?.priority ?? "";
      let why = "";
      if (d === "bad" || d === "never" || d === "uncertain") why = quality(p);
      const since = d === "bad" && p.last ? (store.now() - Date.parse(p.last.time)) / 1000 : pointAge(p);
      if (old && d === "good") why = t("quality.stale");
      if ((old || (d === "bad" && p.last)) && since !== null) why = (why ? why + " · " : "") + t("age.ago", { age: age(since) });
      text(note, why);
      if (seen && seen !== s.text && !old) {
        el.classList.add("changed");
        clearTimeout(fade);
        fade = setTimeout(() => el.classList.remove("changed"), 150);
      }
      seen = s.text;
    },
  };
}

/** bar shows where the value lies in the point's range, with its limits. */
export function bar(name: string): Widget {
  const mark = h("i.mark"), band = h("i.band"), track = h("span.track");
  const el = h("span.bar", { role: "img" }, track);
  let drawn = "";
  return {
    el,
    update() {
      const p = store.points.get(name);
      if (!p) return;
      const [lo, hi] = extent(p);
      if (lo === null || hi === null) {
        el.classList.add("empty");
        return;
      }
      el.classList.remove("empty");
      const at = (v: number) => Math.max(0, Math.min(1, (v - lo) / (hi - lo))) * 100 + "%";
      const shape = JSON.stringify([lo, hi, p.limits]);
      if (shape !== drawn) {
        drawn = shape;
        const lows = (p.limits ?? []).filter((l) => l.kind.startsWith("low")).map((l) => l.value);
        const highs = (p.limits ?? []).filter((l) => l.kind.startsWith("high")).map((l) => l.value);
        band.style.left = at(Math.max(lo, ...lows));
        band.style.right = 100 - parseFloat(at(Math.min(hi, ...highs))) + "%";
        const ticks = (p.limits ?? []).map((l) => {
          const i = h("i.limit");
          i.style.left = at(l.value);
          return i;
        });
        replace(track, lows.length || highs.length ? band : null, ticks, mark);
      }
      const v = p.value;
      const ok = typeof v === "number" && doubt(p) !== "bad" && !stale(p);
      mark.hidden = !ok;
      if (ok) mark.style.left = at(v);
      mark.classList.toggle("beyond", ok && (v < lo || v > hi));
      el.dataset.priority = (ok && violated(p)?.priority) || "";
      el.setAttribute("aria-label", `${plain(p, lo)} – ${plain(p, hi)}`);
      el.title = `${plain(p, lo)} – ${plain(p, hi)}`;
    },
  };
}

/** extent of the bar: the maker's range, the unit's own bounds, or what the limits span with room on both sides. */
export function extent(p: Point): [number | null, number | null] {
  if (p.class === "string" || p.enum || p.bits || p.counter) return [null, null];
  const own = bounds[p.unit];
  let lo = p.range?.min ?? own?.[0] ?? null, hi = p.range?.max ?? own?.[1] ?? null;
  const lows = (p.limits ?? []).filter((l) => l.kind.startsWith("low")).map((l) => l.value);
  const highs = (p.limits ?? []).filter((l) => l.kind.startsWith("high")).map((l) => l.value);
  if (hi === null && highs.length) hi = Math.max(...highs) * 1.25;
  if (hi === null && lows.length) hi = Math.max(...lows) * 2;
  if (p.range?.max === undefined && !own && hi !== null && hi > 0 && typeof p.value === "number") {
    while (hi < p.value * 1.1) hi *= 2; // limits alone say little of how far a value goes
  }
  if (lo === null && hi !== null) lo = Math.min(0, ...lows.map((l) => l * 1.25));
  return lo !== null && hi !== null && hi > lo ? [lo, hi] : [null, null];
}

/** ageOf is how old the shown value is: of a bad one, the last known. */
export function ageOf(name: string): Widget {
  const el = h("span.age");
  return {
    el,
    update() {
      const p = store.points.get(name);
      if (!p) return;
      const bad = doubt(p) === "bad";
      const a = bad ? (p.last ? (store.now() - Date.parse(p.last.time)) / 1000 : null) : pointAge(p);
      text(el, a === null ? "—" : age(a));
      el.classList.toggle("old", bad || stale(p));
    },
  };
}

export function qualityOf(name: string): Widget {
  const el = h("span.quality");
  return {
    el,
    update() {
      const p = store.points.get(name);
      if (!p) return;
      const d = doubt(p), old = stale(p);
      text(el, old && d === "good" ? t("quality.stale") : quality(p));
      el.dataset.doubt = old && d === "good" ? "stale" : d;
    },
  };
}
