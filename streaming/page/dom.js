// Elements, numbers and times as they are shown. Text goes in as text alone.

/** An element with properties (`class`, `text`, `data-*`, `aria-*`, ...) and children; what is null is left out. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value == null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "class") made.className = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export const byId = (id) => document.getElementById(id);

const whole = new Intl.NumberFormat("en-US");
export const count = (number) => (number == null ? "–" : whole.format(number));
export const milliseconds = (ms) =>
  ms == null
    ? "–"
    : ms < 9.95
      ? `${ms.toFixed(1)} ms`
      : ms < 999.5
        ? `${Math.round(ms)} ms`
        : `${(ms / 1000).toFixed(1)} s`;
export const seconds = (s) =>
  s == null
    ? "–"
    : s < 90
      ? `${Math.round(s)} s`
      : s < 5400
        ? `${Math.round(s / 60)} min`
        : `${(s / 3600).toFixed(1)} h`;

const SHANGHAI_MS = 8 * 3600 * 1000;
const shifted = (iso) => new Date(Date.parse(iso.replace(/(\.\d{3})\d*/, "$1")) + SHANGHAI_MS).toISOString();
/** The exchange's date, 2025-05-23, and time of day, 14:05, of an ISO time in UTC. */
export const day = (iso) => shifted(iso).slice(0, 10);
export const minute = (iso) => shifted(iso).slice(11, 16);
/** The clock on the reader's wall, 14:05:09, of milliseconds. */
export const wallClock = (ms) => new Date(ms).toTimeString().slice(0, 8);

/** What is remembered in the browser, where it lets itself remember. */
export function remembered(storage, name, value) {
  try {
    if (value === undefined) return storage().getItem(name);
    if (value === null) storage().removeItem(name);
    else storage().setItem(name, value);
  } catch {
    // Forbidden here: then it is asked for again.
  }
  return value ?? null;
}
