import type { Point } from "../api";
import { siteName } from "../alarm";
import { h, replace, text } from "../dom";
import { doubt, quality } from "../format";
import { maybe, say, t } from "../lang";
import { ageOf, bar, extent, href, qualityOf, value } from "../point";
import type { Scope } from "../scope";
import { empty, loading } from "../state";
import { store } from "../store";
import { causes } from "./chain";
import { sideAlarms } from "./overview";

/** site shows every device as a dense table, with the site's alarms beside. */
export const site = (name: string) => (el: HTMLElement, scope: Scope): void => {
  if (!store.ready) {
    replace(el, loading());
    return;
  }
  const devices = new Map<string, Point[]>();
  for (const p of store.points.values()) {
    if (p.site === name) devices.set(p.device, [...(devices.get(p.device) ?? []), p]);
  }
  if (!devices.size) {
    replace(el, empty(t("missing.site", { name }), t("missing.hint")), h("p.state", null, h("a", { href: "/" }, t("back"))));
    return;
  }
  const side = h("aside.side");
  const broken = h("section.causes", { hidden: true });
  const own = name + "/";
  replace(el,
    h("h1", null, siteName(name), h("span.muted", null, name)),
    broken,
    h("div.site", null,
      h("div.devices", null, [...devices.entries()].sort(byKind).map(([d, points]) => device(d, points, scope))),
      side));
  sideAlarms(side, scope, () => store.alarms.filter((a) => a.point.startsWith(own)), t("alarms.site"));
  causes(broken, scope, name, true);
};

/** byKind puts the board's own points last. */
function byKind([a, p]: [string, Point[]], [b, q]: [string, Point[]]): number {
  const own = (x: Point[]) => Number(x[0]!.kind === "gateway_health");
  return own(p) - own(q) || (a < b ? -1 : 1);
}

function device(name: string, points: Point[], scope: Scope): HTMLElement {
  points.sort((a, b) => a.order - b.order);
  const p = points[0]!;
  const word = h("span.device-state");
  const silent = {
    el: word,
    update() {
      // All points bad for one reason: the device, not a point, is to be looked at.
      const now = points.map((x) => store.points.get(x.name)).filter((x): x is Point => !!x);
      const bad = now.length > 0 && now.every((x) => doubt(x) === "bad" && x.code >= 50 && x.code === now[0]!.code);
      text(word, bad ? t("device.silent", { why: quality(now[0]!) }) : "");
    },
  };
  scope.show(p.name, silent);
  return h("section.device", { "data-device": name },
    h("h3", null, say(p.device_label, name), h("span.muted", null, `${name} · ${maybe("kind.", p.kind)}${p.bus ? " · " + p.bus : ""}`), word),
    h("table" + (points.some((x) => extent(x)[0] !== null) ? "" : ".no-bars"), null,
      h("thead", null, h("tr", null, h("th", null, t("col.point")), h("th.r", null, t("col.value")), h("th.c-bar", null, t("col.range")), h("th.r.c-age", null, t("col.age")), h("th.c-quality", null, t("col.quality")))),
      h("tbody", null, points.map((x) => h("tr", { "data-point": x.point },
        h("td", null, h("a", { href: href(x), title: x.point }, say(x.label, x.point))),
        h("td.r", null, scope.show(x.name, value(x.name))),
        h("td.c-bar", null, scope.show(x.name, bar(x.name))),
        h("td.r.c-age", null, scope.show(x.name, ageOf(x.name))),
        h("td.c-quality", null, scope.show(x.name, qualityOf(x.name))))))));
}
