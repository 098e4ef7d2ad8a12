// Runs before anything is painted: theme and language, so that neither flashes.
// ?lang= and ?theme= choose for this visit, the menu for good.
const query = new URLSearchParams(location.search);
const root = document.documentElement;

function stored(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // storage is forbidden: the defaults hold
  }
}

const lang = query.get("lang") ?? stored("lang") ?? "zh";
root.dataset.lang = lang === "en" ? "en" : "zh";
root.lang = lang === "en" ? "en" : "zh-CN";

const theme = query.get("theme") ?? stored("theme");
if (theme === "light" || theme === "dark") root.dataset.theme = theme;
else root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
