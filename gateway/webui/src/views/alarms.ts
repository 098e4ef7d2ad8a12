import { acknowledge, fill, isOpen, urgent } from "../alarm";
import { h, replace, text } from "../dom";
import { t } from "../lang";
import type { Scope } from "../scope";
import { empty, failed, loading } from "../state";
import { store } from "../store";

/** alarms is the whole list; one key selects, one acknowledges. */
export function alarms(el: HTMLElement, scope: Scope): void {
  const ul = h("ul.alarm-list"), body = h("div"), warn = h("p.warn", { role: "alert" });
  replace(el, h("h1", null, t("nav.alarms"), h("span.muted.keys-hint", null, t("alarms.keys"))), warn, body);
  const draw = () => {
    text(warn, store.alarmsReady && store.alarmsProblem ? t("alarms.problem") : "");
    if (!store.alarmsReady) {
      replace(body, store.alarmsProblem ? failed(store.alarmsProblem, () => void store.readAlarms()) : loading());
      return;
    }
    const list = [...store.alarms].sort(urgent);
    if (!list.length) {
      replace(body, store.alive ? empty(t("empty.alarms"), t("empty.alarms.hint")) : empty(t("dead.title")));
      return;
    }
    if (!ul.isConnected) replace(body, ul);
    fill(ul, list, false);
  };
  draw();
  // "shape": the points' labels came.
  for (const what of ["alarms", "alive", "shape"] as const) scope.own(store.on(what, draw));
  scope.every(10_000, draw);

  const key = (e: KeyboardEvent) => {
    if (e.metaKey || e.ctrlKey || e.altKey || (e.target as Element).matches("input, textarea, select")) return;
    const rows = [...ul.querySelectorAll<HTMLElement>("li.alarm")];
    const at = rows.findIndex((r) => r === document.activeElement);
    switch (e.key.toLowerCase()) {
      case "j": case "arrowdown": rows[Math.min(at + 1, rows.length - 1)]?.focus(); break;
      case "k": case "arrowup": rows[Math.max(at - 1, 0)]?.focus(); break;
      case "a": {
        const r = at >= 0 ? rows[at] : rows.length === 1 ? rows[0] : undefined;
        const a = store.alarms.find((x) => x.id === r?.dataset.id);
        if (!a || !isOpen(a)) return;
        void acknowledge(a, r!.querySelector<HTMLButtonElement>("button.ack") ?? undefined);
        break;
      }
      case "enter":
        if (at < 0) return;
        rows[at]!.querySelector<HTMLAnchorElement>("a.alarm-main")?.click();
        break;
      default: return;
    }
    e.preventDefault();
  };
  document.addEventListener("keydown", key);
  scope.own(() => document.removeEventListener("keydown", key));
}
