import en from "./lang/en.json";
import zh from "./lang/zh.json";

export type Key = keyof typeof zh;
export type Lang = "zh" | "en";
export interface Label { zh?: string; en?: string }

const catalogues: Record<Lang, Record<Key, string>> = { zh, en };

export function lang(): Lang {
  return document.documentElement.dataset.lang === "en" ? "en" : "zh";
}

export function setLang(l: Lang): void {
  document.documentElement.dataset.lang = l;
  document.documentElement.lang = l === "en" ? "en" : "zh-CN";
  keep("lang", l);
}

export function keep(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // Storage is forbidden: the choice holds for this visit.
  }
}

/** t is the text of a key with {name} filled in. */
export function t(key: Key, fill: Record<string, string | number> = {}): string {
  return catalogues[lang()][key].replace(/\{(\w+)\}/g, (_, n: string) => String(fill[n] ?? ""));
}

/** maybe is t for keys made of data: the data itself where there is no text. */
export function maybe(prefix: string, name: string): string {
  return (catalogues[lang()] as Record<string, string>)[prefix + name] ?? name;
}

/** say is a label in the present language, or the other, or the name. */
export function say(label: Label | undefined, name: string): string {
  const l = lang();
  return label?.[l] || label?.[l === "zh" ? "en" : "zh"] || name;
}
