// The table of signals: newest first, filtered, bounded, each row a way to its chart.

import { byId, count, day, element, minute } from "./dom.js";

const ROWS = 500;
const KEPT = 5_000;
const TEXTS = { BUY: "buy", SELL: "sell", ALERT: "alert" };

/** Holds the newest signals, each once by its id, and shows the newest ROWS of those that pass the filter. */
export class SignalTable {
  #kept = [];
  #ids = new Set();
  #revoked = new Set();
  #rows = new Map();
  #waiting = [];
  #strategies = new Set();
  #filter = () => true;

  constructor(onChosen) {
    this.onChosen = onChosen;
    this.body = byId("rows");
    const filters = byId("filters");
    filters.addEventListener("input", () => this.#refilter());
    filters.addEventListener("submit", (event) => event.preventDefault());
    this.body.addEventListener("click", (event) => this.#choose(event.target.closest("tr")));
    this.body.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Take signals, oldest first; those that are here already are left out. */
  take(signals) {
    const fresh = signals.filter(({ id }) => !this.#ids.has(id) && this.#ids.add(id));
    for (const signal of fresh) {
      if (signal.revokes) {
        this.#revoked.add(signal.revokes);
        this.#rows.get(signal.revokes)?.classList.add("revoked");
      }
      this.#name(signal.strategy);
    }
    this.#kept.push(...fresh);
    if (this.#kept.length > KEPT) this.#forget(this.#kept.splice(0, this.#kept.length - KEPT));
    if (this.#waiting.length === 0) setTimeout(() => this.#show(), document.hidden ? 1000 : 50);
    this.#waiting.push(...fresh);
    return fresh;
  }

  #forget(old) {
    for (const { id, revokes } of old) {
      this.#ids.delete(id);
      this.#revoked.delete(revokes);
    }
  }

  /** Put what has come since into the table, in one go. */
  #show() {
    const passed = this.#waiting.filter(this.#filter).slice(-ROWS).reverse();
    this.#waiting = [];
    const made = document.createDocumentFragment();
    for (const signal of passed) made.append(this.#row(signal));
    this.body.prepend(made);
    while (this.body.rows.length > ROWS) {
      const last = this.body.rows[this.body.rows.length - 1];
      this.#rows.delete(last.dataset.id);
      last.remove();
    }
    byId("count").textContent = this.body.rows.length ? count(this.body.rows.length) : "";
    byId("no-rows").hidden = this.body.rows.length > 0;
    byId("no-rows").textContent = this.#kept.length ? "none of the newest signals passes this filter" : "no signals yet";
  }

  #refilter() {
    const text = byId("filter-text").value.trim().toLowerCase();
    const strategy = byId("filter-strategy").value;
    const action = byId("filter-action").value;
    const least = Number(byId("filter-confidence").value) || 0;
    this.#filter = (signal) =>
      (!text || signal.symbol.toLowerCase().includes(text) || (signal.name ?? "").toLowerCase().includes(text)) &&
      (!strategy || signal.strategy === strategy) &&
      (!action || signal.action === action) &&
      signal.confidence >= least;
    this.#rows.clear();
    this.body.replaceChildren();
    this.#waiting = [...this.#kept];
    this.#show();
  }

  #row(signal) {
    const { id, symbol, name, action, strategy, confidence } = signal;
    const percent = Math.round(confidence * 100);
    const row = element(
      "tr",
      { "data-id": id, class: `${TEXTS[action] ?? ""} ${this.#revoked.has(id) ? "revoked" : ""}` },
      element("td", { class: "when" }, element("time", { datetime: signal.bar_end, text: minute(signal.bar_end), title: day(signal.bar_end) }), element("small", { text: signal.frame })),
      element("td", { class: "stock" }, element("button", { type: "button", title: "Show its chart" }, element("b", { text: name ?? symbol }), element("small", { text: name ? symbol : "" }))),
      element("td", {}, element("span", { class: "action", text: action })),
      element("td", { class: "number", text: signal.price.toFixed(2) }),
      element("td", { class: "why" }, element("span", { text: strategy }), ...tags(signal).map((text) => element("small", { class: "tag", text }))),
      element("td", { class: "number conf" }, element("meter", { min: 0, max: 1, value: confidence, title: `${percent} %` }), element("small", { text: `${percent}%` })),
    );
    row.signal = signal;
    this.#rows.set(id, row);
    return row;
  }

  #name(strategy) {
    if (this.#strategies.has(strategy)) return;
    this.#strategies.add(strategy);
    const select = byId("filter-strategy");
    const later = [...select.options].slice(1).find((option) => option.value > strategy);
    select.add(element("option", { value: strategy, text: strategy }), later ?? null);
  }

  #choose(row) {
    if (!row) return;
    for (const other of this.body.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    row.setAttribute("aria-current", "true");
    this.onChosen(row.signal);
  }

  #walk(event) {
    const row = event.target.closest("tr");
    const next = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling }[event.key];
    if (!next) return;
    event.preventDefault();
    next.querySelector("button").focus();
  }
}

/** What stands beside a signal: at its limit, of a bar still open, of a revised one, taking another back. */
export function tags(signal) {
  return [
    signal.at_limit_up && "涨停",
    signal.at_limit_down && "跌停",
    signal.developing && "developing",
    signal.revision > 0 && `revision ${signal.revision}`,
    signal.revokes && "takes back",
  ].filter(Boolean);
}
