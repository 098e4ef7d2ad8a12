// The few lines of DOM that every view uses. Text is always text: nothing
// here or elsewhere parses HTML.

export type Child = Node | string | number | null | undefined | false | Child[];

type Attrs = Record<string, string | number | boolean | null | undefined | ((e: Event) => void)>;

/** h makes an element: h("a.link", {href: "/x", onclick: f}, "text", node, ...). */
export function h<K extends keyof HTMLElementTagNameMap>(spec: K, attrs?: Attrs | null, ...children: Child[]): HTMLElementTagNameMap[K];
export function h(spec: string, attrs?: Attrs | null, ...children: Child[]): HTMLElement;
export function h(spec: string, attrs?: Attrs | null, ...children: Child[]): HTMLElement {
  const [tag, ...classes] = spec.split(".");
  const el = document.createElement(tag!);
  if (classes.length) el.className = classes.join(" ");
  for (const [k, v] of Object.entries(attrs ?? {})) {
    if (v === null || v === undefined || v === false) continue;
    if (typeof v === "function") el.addEventListener(k.slice(2), v);
    else el.setAttribute(k, v === true ? "" : String(v));
  }
  add(el, children);
  return el;
}

export function add(el: Element, children: Child[]): void {
  for (const c of children) {
    if (c === null || c === undefined || c === false) continue;
    if (Array.isArray(c)) add(el, c);
    else el.append(c instanceof Node ? c : String(c));
  }
}

export function replace(el: Element, ...children: Child[]): void {
  el.replaceChildren();
  add(el, children);
}

/** text sets an element's text only when it differs: no needless layout. */
export function text(el: Element, s: string): void {
  if (el.textContent !== s) el.textContent = s;
}
