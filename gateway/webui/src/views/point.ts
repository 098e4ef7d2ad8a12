import type { Point } from "../api";
import { siteName } from "../alarm";
import { h, replace, text, type Child } from "../dom";
import { age, plain, when } from "../format";
import { maybe, say, t, type Key } from "../lang";
import { ageOf, bar, extent, qualityOf, value } from "../point";
import type { Scope } from "../scope";
import { empty, loading } from "../state";
import { store } from "../store";
import { scale } from "../units";
import { trend } from "../trend";
import { chain } from "./chain";

/** point shows one point large, what is known of it, and its trend. */
export const point = (name: string) => (el: HTMLElement, scope: Scope): void => {
  if (!store.ready) {
    replace(el, loading());
    return;
  }
  const p = store.points.get(name);
  if (!p) {
    replace(el, empty(t("missing.point", { name }), t("missing.hint")), h("p.state", null, h("a", { href: "/" }, t("back"))));
    return;
  }
  const big = value(name, "div.value.big");
  const [lo] = extent(p);
  const numeric = p.class !== "string";
  replace(el,
    h("h1", null, say(p.label, p.point), h("span.muted", null, name)),
    h("p.crumbs", null, h("a", { href: "/site/" + p.site }, siteName(p.site)), " › ", say(p.device_label, p.device)),
    h("div.point", null,
      h("section.now", null,
        scope.show(name, big),
        lo !== null && scope.show(name, bar(name)),
        h("p.now-line", null, scope.show(name, qualityOf(name)), " · ", h("span.muted", null, t("col.age"), " "), scope.show(name, ageOf(name))),
        chain(name, scope),
        facts(p, scope)),
      h("section.trend", null, numeric ? trend(p, scope) : empty(t("trend.text")))));
};

function facts(p: Point, scope: Scope): HTMLElement {
  const time = h("span"), clock = h("span"), gateway = h("span");
  scope.show(p.name, {
    el: time,
    update() {
      const x = store.points.get(p.name);
      if (!x) return;
      text(time, when(x.time));
      text(clock, t(("clock." + (x.clock ?? 0)) as Key));
      text(gateway, x.gateway ?? "—");
    },
  });
  const rows: [Key, Child][] = [
    ["point.time", time],
    ["point.clock", clock],
    ["point.period", p.period ? age(p.period) : null],
    ["point.range", p.range ? `${p.range.min === undefined ? "…" : plain(p, p.range.min)} – ${p.range.max === undefined ? "…" : plain(p, p.range.max)}` : null],
    ["point.limits", p.limits?.length ? p.limits.map((l) => h("span.limit-line", { "data-priority": l.priority }, `${t(("limit." + l.kind) as Key)} ${plain(p, l.value)} (${t(("priority." + l.priority) as Key)})`)) : null],
    ["point.unit", p.unit ? scale(p.unit, 0).symbol : null],
    ["point.kind", maybe("kind.", p.kind)],
    ["point.profile", p.profile],
    ["point.bus", p.bus],
    ["point.gateway", gateway],
  ];
  return h("dl", null, rows.filter(([, v]) => v).map(([k, v]) => [h("dt", null, t(k)), h("dd", null, v)]));
}
