// One point's trend: the mean as a line, minimum to maximum as a band, gaps
// as gaps, limits as dashed lines. What comes live is appended to it.
import uPlot from "../vendor/uplot/uPlot.esm.js";
import { api, type History, type Point } from "./api";
import { h, replace, text } from "./dom";
import { clock, doubt, plain, when } from "./format";
import { t, type Key } from "./lang";
import { store } from "./store";
import type { Scope } from "./scope";
import { empty, failed, loading } from "./state";
import { figures, scale, type Scale } from "./units";

const spans: [Key, number][] = [["trend.10m", 600], ["trend.1h", 3600], ["trend.24h", 86400], ["trend.7d", 7 * 86400]];
let chosen = 600; // kept while one walks from point to point

type Row = (number | null)[];

/** Samples in columns: time in s, mean, min, max. A null is a gap. */
class Series {
  t: number[] = [];
  mean: Row = [];
  min: Row = [];
  max: Row = [];

  constructor(private readonly gap: number) {}

  add(at: number, mean: number | null, min = mean, max = mean): void {
    const last = this.t[this.t.length - 1];
    if (last !== undefined && at <= last) return;
    if (last !== undefined && mean !== null && this.mean[this.mean.length - 1] !== null && at - last > this.gap) {
      this.push((at + last) / 2, null, null, null);
    }
    this.push(at, mean, min, max);
  }

  private push(at: number, mean: number | null, min: number | null, max: number | null): void {
    this.t.push(at);
    this.mean.push(mean);
    this.min.push(min);
    this.max.push(max);
  }

  drop(before: number): void {
    let n = 0;
    while (n < this.t.length && this.t[n]! < before) n++;
    if (n > 64) for (const a of [this.t, this.mean, this.min, this.max]) a.splice(0, n);
  }
}

const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function trend(p: Point, scope: Scope): HTMLElement {
  const box = h("div.plot"), readout = h("p.readout");
  const buttons = spans.map(([key, s]) => h("button", { type: "button", onclick: () => { chosen = s; void load(); } }, t(key)));
  const el = h("div", null,
    h("div.trend-head", null, h("h2", null, t("trend.title")), h("span.spans", { role: "group" }, buttons), readout), box);

  let plot: uPlot | null = null;
  let series: Series | null = null;
  let sc: Scale = { symbol: "", factor: 1 };
  let running: AbortController | null = null;
  let span = chosen;
  const unit = () => (p.enum || p.bits ? "" : sc.symbol);

  const load = async (quiet = false) => {
    running?.abort();
    const mine = (running = new AbortController());
    const asked = chosen;
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(spans[i]![1] === asked)));
    if (!quiet) {
      drop();
      replace(box, loading());
    }
    const to = store.now();
    const buckets = Math.max(60, Math.min(1000, Math.floor(asked / Math.max(p.period || 1, 1))));
    try {
      const got = await api.history(p.name, new Date(to - asked * 1000), new Date(to), buckets, mine.signal);
      if (mine.signal.aborted || scope.closed) return;
      span = asked;
      take(got);
    } catch (e) {
      if (mine.signal.aborted || scope.closed || quiet) return;
      replace(box, failed(e, () => void load()));
    }
  };

  const take = (got: History) => {
    let top = 0;
    for (const b of got.buckets) if (b.count) top = Math.max(top, Math.abs(b.max ?? 0), Math.abs(b.min ?? 0));
    sc = scale(p.unit, top, p.counter);
    const f = sc.factor;
    const fresh = new Series(Math.max(3 * got.width, 4 * (p.period || 15), 30));
    for (const b of got.buckets) {
      const at = Date.parse(b.start) / 1000 + got.width / 2;
      if (!b.count || b.mean === undefined) fresh.add(at, null);
      else fresh.add(at, b.mean * f, b.min! * f, b.max! * f);
    }
    series = fresh;
    live();
    draw();
  };

  /** live appends what the stream last said of the point. */
  const live = () => {
    const x = store.points.get(p.name);
    if (!series || !x?.time) return;
    const at = Date.parse(x.time) / 1000;
    if (doubt(x) === "bad") series.add(at, null);
    else if (typeof x.value === "number" && !x.unconfirmed) series.add(at, x.value * sc.factor);
    series.drop(store.now() / 1000 - span * 1.05);
  };

  const data = (): uPlot.AlignedData => {
    const s = series!;
    return [s.t, s.max, s.min, s.mean];
  };
  const window_ = (): { min: number; max: number } => {
    const now = store.now() / 1000;
    return { min: now - span, max: now };
  };

  const draw = () => {
    if (!series) return;
    if (!series.mean.some((v) => v !== null)) {
      drop();
      replace(box, empty(t("trend.empty"), t("trend.empty.hint")));
      return;
    }
    if (plot) {
      plot.batch(() => {
        plot!.setData(data(), false);
        plot!.setScale("x", window_());
      });
      return;
    }
    replace(box);
    plot = new uPlot(options(), data(), box);
    plot.setScale("x", window_());
  };

  /** codes are no quantity: whole numbers, told by what they mean. */
  const codes = !!(p.enum || p.bits);
  const whole = Array.from({ length: 10 }, (_, i) => [10 ** i, 2 * 10 ** i, 5 * 10 ** i]).flat();

  const options = (): uPlot.Options => {
    const line = css("--trend1"), muted = css("--muted"), grid = css("--line");
    const font = `12px ${css("--font") || "sans-serif"}`;
    const show = (v: number | null | undefined) => (v === null || v === undefined ? "—" : figures(v, sc.digits));
    return {
      width: box.clientWidth || 600,
      height: Math.max(240, Math.min(560, innerHeight - 300)),
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: true }, y: { range: (_u, min, max) => room(min, max) } },
      axes: [
        { stroke: muted, font, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, space: 80, values: (_u, ticks) => ticks.map((s) => (span > 2 * 86400 ? when(s * 1000).slice(0, 5) : clock(s * 1000).slice(0, span > 1200 ? 5 : 8))) },
        { stroke: muted, font, grid: { stroke: grid, width: 1 }, ticks: { show: false }, size: 64, values: (_u, ticks, _a, _f, step) => ticks.map((v) => figures(v, decimals(step))), ...(codes && { incrs: whole }), label: unit(), labelSize: 18, labelFont: font },
      ],
      series: [
        {},
        { stroke: "transparent", points: { show: false } },
        { stroke: "transparent", points: { show: false } },
        { stroke: line, width: 1.5, points: { size: 4, stroke: line, fill: line } },
      ],
      bands: [{ series: [1, 2], fill: line + "33" }],
      hooks: {
        draw: [(u) => limits(u, muted, font)],
        setCursor: [(u) => {
          const i = u.cursor.idx;
          const s = series;
          if (i === null || i === undefined || !s || s.mean[i] === undefined) {
            text(readout, t("trend.hint"));
            return;
          }
          const same = s.min[i] === s.max[i];
          if (codes) { // a code has a meaning, and codes have no mean
            const word = (v: number | null | undefined) => plain(p, v ?? null);
            text(readout, `${when(s.t[i]! * 1000)}  ${same ? word(s.mean[i]) : `${word(s.min[i])} – ${word(s.max[i])}`}`);
            return;
          }
          text(readout, `${when(s.t[i]! * 1000)}  ${same ? "" : t("trend.mean") + " "}${show(s.mean[i])} ${unit()}` + (same ? "" : `  (${show(s.min[i])} – ${show(s.max[i])})`));
        }],
      },
    };
  };

  /** room leaves air above and below, and never draws noise of the last digit as mountains. */
  const room = (min: number | null, max: number | null): [number, number] => {
    if (min === null || max === null) return [0, 1];
    const least = codes ? 2 : Math.max(Math.abs(max), Math.abs(min)) * 0.01 || 1;
    const pad = Math.max((max - min) * 0.12, (least - (max - min)) / 2, 0);
    return [min - pad, max + pad];
  };

  const limits = (u: uPlot, color: string, font: string) => {
    const c = u.ctx;
    c.save();
    c.font = font.replace("12px", 11 * devicePixelRatio + "px");
    c.textAlign = "right";
    for (const l of store.points.get(p.name)?.limits ?? []) {
      const y = u.valToPos(l.value * sc.factor, "y", true);
      if (y < u.bbox.top || y > u.bbox.top + u.bbox.height) continue;
      c.strokeStyle = c.fillStyle = css("--" + l.priority) || color;
      c.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      c.beginPath();
      c.moveTo(u.bbox.left, y);
      c.lineTo(u.bbox.left + u.bbox.width, y);
      c.stroke();
      c.fillText(`${t(("limit." + l.kind) as Key)} ${figures(l.value * sc.factor, sc.digits)}`, u.bbox.left + u.bbox.width - 4, y - 6 * devicePixelRatio);
    }
    c.restore();
  };

  const drop = () => {
    plot?.destroy();
    plot = null;
  };

  text(readout, t("trend.hint"));
  scope.own(() => { running?.abort(); drop(); });
  scope.own(store.bind(p.name, () => { live(); draw(); }));
  scope.own(store.on("tick", () => { if (plot) plot.setScale("x", window_()); }));
  scope.every(60_000, () => void load(true));
  const size = new ResizeObserver(() => plot?.setSize({ width: box.clientWidth, height: plot.height }));
  size.observe(box);
  scope.own(() => size.disconnect());
  queueMicrotask(() => void load());
  return el;
}

function decimals(step: number): number {
  return Math.max(0, Math.min(6, Math.ceil(-Math.log10(step) - 1e-9)));
}
