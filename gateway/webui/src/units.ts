// How a canonical unit is shown: one rule a unit, for every view.

interface Rule {
  /** symbol shown, after the factor and before a prefix is put before it */
  symbol: string;
  factor?: number;
  /** digits after the point; absent: three significant figures at least */
  digits?: number;
  /** prefixes are chosen by magnitude: 412 kW rather than 412000 W */
  prefix?: boolean;
}

const rules: Record<string, Rule> = {
  W: { symbol: "W", prefix: true },
  VA: { symbol: "VA", prefix: true },
  var: { symbol: "var", prefix: true },
  Wh: { symbol: "Wh", prefix: true },
  VAh: { symbol: "VAh", prefix: true },
  varh: { symbol: "varh", prefix: true },
  J: { symbol: "J", prefix: true },
  Pa: { symbol: "Pa", prefix: true },
  ohm: { symbol: "Ω", prefix: true },
  degC: { symbol: "°C", digits: 1 },
  K: { symbol: "K", digits: 1 },
  bar: { symbol: "bar", digits: 2 },
  mbar: { symbol: "mbar", digits: 0 },
  // Plants here speak of cubic metres an hour.
  "L/s": { symbol: "m³/h", factor: 3.6 },
  "L/h": { symbol: "L/h" },
  m3: { symbol: "m³" },
  "m3/h": { symbol: "m³/h" },
  L: { symbol: "L" },
  m: { symbol: "m", digits: 2 },
  mm: { symbol: "mm", digits: 0 },
  "m/s": { symbol: "m/s", digits: 2 },
  "%": { symbol: "%", digits: 1 },
  "%RH": { symbol: "%RH", digits: 1 },
  V: { symbol: "V", digits: 1 },
  A: { symbol: "A" },
  mA: { symbol: "mA", digits: 2 },
  Hz: { symbol: "Hz", digits: 2 },
  rpm: { symbol: "r/min", digits: 0 },
  "mg/L": { symbol: "mg/L", digits: 2 },
  "uS/cm": { symbol: "µS/cm", digits: 0 },
  NTU: { symbol: "NTU" },
  "Nm3/h": { symbol: "Nm³/h" },
  Nm3: { symbol: "Nm³" },
  "kg/s": { symbol: "t/h", factor: 3.6 },
  "kg/m3": { symbol: "kg/m³" },
  "MJ/Nm3": { symbol: "MJ/Nm³" },
  "ohm/m": { symbol: "Ω/m" },
  pH: { symbol: "pH", digits: 2 },
  deg: { symbol: "°", digits: 1 },
  h: { symbol: "h", digits: 0 },
  d: { symbol: "d", digits: 0 },
  min: { symbol: "min" },
};

const prefixes: [number, string][] = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];

/** bounds are the ends of a unit that has them by its nature. */
export const bounds: Record<string, [number, number]> = { "%": [0, 100], pH: [0, 14], "%LEL": [0, 100] };

export interface Scale { symbol: string; factor: number; digits?: number }

/** scale says how to show values of a unit around the magnitude given. */
export function scale(unit: string, magnitude: number, counter = false): Scale {
  if (unit === "s") {
    if (magnitude >= 2 * 86400) return { symbol: "d", factor: 1 / 86400, digits: 1 };
    if (magnitude >= 2 * 3600) return { symbol: "h", factor: 1 / 3600, digits: 1 };
    if (magnitude >= 180) return { symbol: "min", factor: 1 / 60, digits: 0 };
    return { symbol: "s", factor: 1, digits: magnitude < 10 ? 1 : 0 };
  }
  // Medium voltage is spoken of in kilovolts, mains voltage never.
  if (unit === "V" && magnitude >= 1000) return { symbol: "kV", factor: 1e-3, digits: 2 };
  const r = rules[unit];
  if (!r) return { symbol: unit, factor: 1 };
  const factor = r.factor ?? 1;
  if (!r.prefix) return { symbol: r.symbol, factor, digits: r.digits ?? (counter ? 1 : undefined) };
  // A counter keeps its figures: kilowatt-hours to the last tenth.
  if (counter) return { symbol: "k" + r.symbol, factor: 1e-3, digits: 1 };
  for (const [size, p] of prefixes) {
    if (magnitude >= size) return { symbol: p + r.symbol, factor: 1 / size, digits: undefined };
  }
  return { symbol: r.symbol, factor: 1, digits: magnitude >= 10 ? 0 : 1 };
}

/** figures formats a shown number: fixed digits, or three significant ones; thin spaces between thousands. */
export function figures(v: number, digits?: number): string {
  const a = Math.abs(v);
  if (v === 0) return "0";
  const d = digits ?? (a >= 100 ? 0 : a >= 10 ? 1 : 2);
  let s = a.toFixed(d);
  const [whole, rest] = s.split(".");
  s = whole!.length > 4 ? whole!.replace(/\B(?=(\d{3})+$)/g, "\u2009") : whole!;
  if (rest) s += "." + rest;
  // A minus sign as wide as a figure, and never before zero.
  return v < 0 && /[1-9]/.test(s) ? "\u2212" + s : s;
}
