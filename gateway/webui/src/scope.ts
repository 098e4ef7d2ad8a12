// A scope is what one view has bound: it is closed when the view goes, so
// that nothing keeps updating what nobody sees.
import type { Widget } from "./point";
import { store } from "./store";

export class Scope {
  private readonly ends: (() => void)[] = [];
  private readonly widgets = new Set<Widget>();
  closed = false;

  constructor() {
    // Ages move though nothing comes.
    this.own(store.on("tick", () => this.widgets.forEach((w) => w.update())));
  }

  own(end: () => void): void {
    this.ends.push(end);
  }

  /** show keeps the widget up to date with its point, and returns its element. */
  show(name: string, w: Widget): HTMLElement {
    w.update();
    this.widgets.add(w);
    this.own(store.bind(name, () => w.update()));
    return w.el;
  }

  every(ms: number, f: () => void): void {
    const id = setInterval(f, ms);
    this.own(() => clearInterval(id));
  }

  close(): void {
    this.closed = true;
    for (const f of this.ends.splice(0)) f();
    this.widgets.clear();
  }
}
