// The one place that holds what the hub last said. Views bind to it; nothing
// else keeps values, so nothing else can show an old one as new.
import { api, type Alarm, type Point, type State } from "./api";

/** silence: no event for so long, and the page says so. The hub's heartbeat is 15 s. */
const silence = 18_000;
/** A broken stream that does not come back in this time is told at once. */
const patience = 4_000;

type Listener = () => void;

class Store {
  readonly points = new Map<string, Point>();
  alarms: Alarm[] = [];
  /** ready: a first snapshot came. alarmsReady: the list was read once. */
  ready = false;
  alarmsReady = false;
  alarmsProblem: Error | null = null;
  /** alive: the stream speaks. Since lastEvent nothing else was heard. */
  alive = false;
  lastEvent = 0; // by the hub's clock, ms
  attempts = 0;

  private offset = 0; // hub's clock minus ours, ms
  private heard = performance.now();
  private broken: number | null = null;
  private cursor = "";
  private source: EventSource | null = null;
  private retry: number | undefined;
  private readonly byPoint = new Map<string, Set<Listener>>();
  private readonly lists: Record<"shape" | "alarms" | "alive" | "tick", Set<Listener>> =
    { shape: new Set(), alarms: new Set(), alive: new Set(), tick: new Set() };

  /** now is the hub's time in ms: ages are by one clock, not by this browser's. */
  now(): number {
    return Date.now() + this.offset;
  }

  start(): void {
    this.connect();
    void this.readAlarms();
    setInterval(() => this.watch(), 1000);
    // A page put aside must not keep its stream: a browser opens six
    // connections to a hub, and six pages put aside would use them up.
    addEventListener("pagehide", () => this.source?.close());
    addEventListener("pageshow", (e) => {
      if (e.persisted) this.reconnect();
    });
    setInterval(() => void this.readAlarms(), 10_000);
  }

  on(what: "shape" | "alarms" | "alive" | "tick", f: Listener): () => void {
    this.lists[what].add(f);
    return () => this.lists[what].delete(f);
  }

  /** bind calls f whenever the point's state was told again. */
  bind(name: string, f: Listener): () => void {
    let set = this.byPoint.get(name);
    if (!set) this.byPoint.set(name, (set = new Set()));
    set.add(f);
    return () => {
      set.delete(f);
      if (!set.size && this.byPoint.get(name) === set) this.byPoint.delete(name);
    };
  }

  private tell(what: "shape" | "alarms" | "alive" | "tick"): void {
    for (const f of [...this.lists[what]]) f();
  }

  private connect(): void {
    clearTimeout(this.retry);
    this.source?.close();
    const es = new EventSource("/api/v1/live" + (this.cursor ? "?last_event_id=" + encodeURIComponent(this.cursor) : ""));
    this.source = es;
    const on = (kind: string, f: (data: string) => void) =>
      es.addEventListener(kind, (e) => {
        const m = e as MessageEvent<string>;
        if (m.lastEventId) this.cursor = m.lastEventId;
        f(m.data);
      });
    on("snapshot", (d) => this.take(JSON.parse(d), true));
    on("delta", (d) => this.take(JSON.parse(d), false));
    on("heartbeat", (d) => this.alert(JSON.parse(d).now));
    on("alarms", () => void this.readAlarms());
    on("dropped", () => this.reconnect());
    es.onerror = () => {
      this.broken ??= performance.now();
      if (es.readyState === EventSource.CLOSED) this.reconnect();
    };
  }

  private reconnect(): void {
    this.source?.close();
    this.broken ??= performance.now();
    this.attempts++;
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.connect(), Math.min(1000 * this.attempts, 5000));
  }

  /** watch looks once a second whether the stream still speaks. */
  private watch(): void {
    const now = performance.now();
    const quiet = now - this.heard;
    if (this.ready && this.alive && (quiet > silence || (this.broken !== null && now - this.broken > patience))) {
      this.alive = false;
      this.tell("alive");
    }
    if (quiet > 2 * silence) {
      this.heard = now; // a stream that is open and says nothing: begin anew
      this.reconnect();
    }
    this.tell("tick");
  }

  private alert(now: string): void {
    this.heard = performance.now();
    this.broken = null;
    this.attempts = 0;
    this.lastEvent = Date.parse(now);
    this.offset = this.lastEvent - Date.now();
    if (!this.alive) {
      this.alive = true;
      this.tell("alive");
      void this.readAlarms();
    }
  }

  private take(d: { now: string; points: (Point | State)[]; removed?: string[] }, whole: boolean): void {
    let shape = whole;
    if (whole) this.points.clear();
    for (const p of d.points) {
      if ("kind" in p) {
        shape = true;
        this.points.set(p.name, p);
        continue;
      }
      const old = this.points.get(p.name);
      if (!old) continue;
      // What a state leaves out is not so any more.
      for (const k of ["time", "as_of", "unconfirmed", "last", "clock"] as const) delete old[k];
      Object.assign(old, p);
    }
    for (const name of d.removed ?? []) shape = this.points.delete(name) || shape;
    this.ready = true;
    this.alert(d.now);
    if (shape) this.tell("shape");
    else for (const p of d.points) for (const f of [...(this.byPoint.get(p.name) ?? [])]) f();
  }

  async readAlarms(): Promise<void> {
    try {
      const list = await api.alarms();
      const same = this.alarmsReady && JSON.stringify(list) === JSON.stringify(this.alarms);
      this.alarms = list;
      this.alarmsProblem = null;
      if (same) return;
      this.alarmsReady = true;
    } catch (e) {
      this.alarmsProblem = e as Error;
    }
    this.tell("alarms");
  }
}

export const store = new Store();
