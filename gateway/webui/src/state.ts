// The four states of a view that has nothing to show: what it is, and what to do.
import { Problem } from "./api";
import { h } from "./dom";
import { t } from "./lang";

export function loading(): HTMLElement {
  const el = h("div.state", { role: "status" }, h("p.state-title", null, t("loading")));
  setTimeout(() => {
    if (el.isConnected) el.append(h("p", null, t("loading.slow")));
  }, 6000);
  return el;
}

export function empty(title: string, hint = ""): HTMLElement {
  return h("div.state", null, h("p.state-title", null, title), hint && h("p", null, hint));
}

export function failed(e: unknown, again: () => void): HTMLElement {
  const p = e instanceof Problem ? e : null;
  if (p?.status === 501) return empty(t("error.absent"), `${p.message}${p.hint ? " — " + p.hint : ""}`);
  return h("div.state.failed", { role: "alert" },
    h("p.state-title", null, t("error.title")),
    h("p", null, (e as Error).message ?? String(e)),
    p?.hint && h("p", null, p.hint),
    h("button", { type: "button", onclick: again }, t("error.retry")));
}
