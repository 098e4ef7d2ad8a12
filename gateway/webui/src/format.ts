import type { Point, State, Value } from "./api";
import { maybe, say, t } from "./lang";
import { store } from "./store";
import { figures, scale } from "./units";

export interface Shown { text: string; unit: string }

/** shown is a value of a point as people read it. */
export function shown(p: Point, v: Value): Shown {
  if (v === null || v === undefined) return { text: "—", unit: "" };
  if (typeof v === "string") return { text: v, unit: "" };
  if (p.enum) {
    const l = p.enum[String(v)];
    return l ? { text: say(l, String(v)), unit: "" } : { text: String(v), unit: "" };
  }
  if (p.bits) {
    const set: string[] = [];
    for (const [bit, l] of Object.entries(p.bits)) if (Math.floor(v / 2 ** Number(bit)) % 2) set.push(say(l, "bit " + bit));
    return { text: set.length ? set.join(", ") : t("bits.none"), unit: "" };
  }
  if (p.class === "int" && !p.unit) return { text: figures(v, 0), unit: "" };
  const s = scale(p.unit, Math.abs(v), p.counter);
  return { text: figures(v * s.factor, s.digits), unit: s.symbol };
}

export function plain(p: Point, v: Value): string {
  const s = shown(p, v);
  return s.unit ? s.text + "\u00a0" + s.unit : s.text;
}

/** number is a figure with its unit where no point is at hand. */
export function quantity(v: number, unit: string): string {
  const s = scale(unit, Math.abs(v));
  return s.symbol ? figures(v * s.factor, s.digits) + "\u00a0" + s.symbol : figures(v * s.factor, s.digits);
}

/** age is in seconds. */
export function age(s: number): string {
  s = Math.max(0, Math.floor(s));
  if (s < 100) return s + " s";
  if (s < 5400) return Math.round(s / 60) + " min";
  if (s < 48 * 3600) return Math.round(s / 3600) + " h";
  return Math.round(s / 86400) + " d";
}

export function pointAge(p: State): number | null {
  return p.as_of ? (store.now() - Date.parse(p.as_of)) / 1000 : null;
}

/** Stale: older than two periods, by the hub's clock. One second is forgiven for the way here. */
export function stale(p: Point): boolean {
  const a = pointAge(p);
  return a !== null && p.period > 0 && a > 2 * p.period + 1;
}

export type Doubt = "good" | "uncertain" | "bad" | "never";

export function doubt(p: Point): Doubt {
  if (p.value === null && p.code < 30) return "never";
  if (p.code >= 30) return "bad";
  return p.code > 0 || p.unconfirmed ? "uncertain" : "good";
}

/** quality in words. */
export function quality(p: Point): string {
  if (!p.as_of && p.value === null) return t("quality.never");
  if (p.code === 0 && p.unconfirmed) return t("quality.unconfirmed");
  return qualityOf(p.code, p.quality);
}

export function qualityOf(code: number, name = ""): string {
  const w = maybe("quality.", String(code));
  return w === String(code) ? name || t(code < 30 ? "quality.uncertain" : "quality.bad", { code }) : w;
}

const two = (n: number) => String(n).padStart(2, "0");

export function clock(ms: number): string {
  const d = new Date(ms);
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

/** when is the time of day, with the date when it is not today's. */
export function when(at: string | number | undefined): string {
  if (!at) return "—";
  const d = new Date(at), now = new Date(store.now());
  const day = `${two(d.getMonth() + 1)}-${two(d.getDate())} `;
  if (d.getFullYear() !== now.getFullYear()) return d.getFullYear() + "-" + day + clock(+d);
  return (d.toDateString() === now.toDateString() ? "" : day) + clock(+d);
}
