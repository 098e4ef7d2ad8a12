// The hub's API as docs/contract.md has it. Times are RFC 3339 texts.
import type { Label } from "./lang";

export type Value = number | string | null;

export interface State {
  name: string;
  value: Value;
  quality: string;
  code: number;
  time?: string;
  as_of?: string;
  unconfirmed?: boolean;
  last?: { value: Value; time: string };
  gateway?: string;
  clock?: number;
}

export interface Limit { kind: string; value: number; priority: Priority }

export interface Point extends State {
  site: string;
  device: string;
  point: string;
  kind: string;
  bus?: string;
  profile?: string;
  class?: string;
  unit: string;
  label: Label;
  device_label: Label;
  range?: { min?: number; max?: number };
  limits?: Limit[];
  enum?: Record<string, Label>;
  bits?: Record<string, Label>;
  counter?: boolean;
  order: number;
  period: number;
}

export type Priority = "critical" | "high" | "medium" | "low";
export const priorities: Priority[] = ["critical", "high", "medium", "low"];

export interface Alarm {
  id: string;
  rule: string;
  type: string;
  point: string;
  priority: Priority;
  state: string;
  start: string;
  cleared?: string;
  value?: Value;
  quality: number;
  limit?: number;
  unit?: string;
  acked_by?: string;
  acked_at?: string;
  message: Label;
  help?: Label;
}

export interface Site {
  name: string;
  label: Label;
  key: string[];
  devices: number;
  points: number;
  good: number;
  gateways?: { total: number; online: number };
  alarms: Partial<Record<Priority, { active: number; unacknowledged: number }>>;
}

export interface Gateway {
  name: string;
  site: string;
  gateway: string;
  online: boolean;
  since?: string;
  received?: string;
  version?: string;
  devices: number;
  held: number;
  late: number;
}

export interface Bucket { start: string; min?: number; mean?: number; max?: number; last?: Value; count: number; code: number }
export interface History { unit: string; width: number; buckets: Bucket[] }
export interface JournalEntry { time: string; at?: string; kind: string; alarm?: Alarm; alarm_id?: string; by?: string; detail?: Label }
export interface LedgerRow { site: string; gateway: string; epoch: number; first: number; last: number; stored: number; quarantined: number; lost: number; missing: number }
export interface Component { name: string; label?: Label; state: string; since?: string; detail?: Label }
export interface Health extends Silences { state: string; components: Component[] }
/** HealthNode is one link of the chain from sensor to store. */
export interface HealthNode {
  level: string;
  state: "ok" | "broken" | "unknown";
  site?: string;
  gateway?: string;
  bus?: string;
  device?: string;
  point?: string;
  label?: Label;
  since?: string;
  why?: Label;
  silent?: number;
}
export interface Silences { silent: number; waiting: number; causes?: HealthNode[]; more?: number }
export interface PointHealth { state: string; cause: HealthNode | null; chain: HealthNode[] }

/** Problem is an answer that says what is wrong and what to do. */
export class Problem extends Error {
  constructor(message: string, readonly hint: string, readonly status: number) {
    super(message);
  }
}

async function ask<T>(path: string, init?: RequestInit): Promise<T> {
  const r = await fetch("/api/v1/" + path, { ...init, signal: init?.signal ?? AbortSignal.timeout(35_000) });
  const body: unknown = await r.json().catch(() => null);
  if (!r.ok) {
    const e = body as { error?: string; hint?: string } | null;
    throw new Problem(e?.error ?? `${r.status} ${r.statusText}`, e?.hint ?? "", r.status);
  }
  return body as T;
}

export const api = {
  sites: () => ask<Site[]>("sites"),
  gateways: () => ask<Gateway[]>("gateways"),
  alarms: () => ask<Alarm[]>("alarms"),
  acknowledge: (id: string) => ask<{ id: string }>(`alarms/${encodeURIComponent(id)}/ack`, { method: "POST" }),
  journal: () => ask<JournalEntry[]>("journal?limit=500&from=" + encodeURIComponent(new Date(Date.now() - 7 * 864e5).toISOString())),
  ledger: () => ask<LedgerRow[]>("ledger"),
  health: () => ask<Health>("health"),
  silences: (site: string) => ask<Silences>("health" + (site ? "?site=" + encodeURIComponent(site) : "")),
  chain: (point: string) => ask<PointHealth>("health?point=" + encodeURIComponent(point)),
  history: (point: string, from: Date, to: Date, buckets: number, signal: AbortSignal) =>
    ask<History>(`history?point=${encodeURIComponent(point)}&from=${from.toISOString()}&to=${to.toISOString()}&buckets=${buckets}`, { signal }),
};
