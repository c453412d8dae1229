// The table of signals: newest first, filtered, bounded, each row a way to its chart.

import { byId, count, day, element, minute } from "./dom.js";

const ROWS = 500;
const KEPT = 5_000;
const CODE = /^(\d{6}|\d{6}\.[a-z]{2})$/i;
const CLASSES = { BUY: "buy", SELL: "sell", ALERT: "alert" };

/** Holds the newest signals, each once by its id, and shows the newest ROWS of those that pass the filter. */
export class SignalTable {
  #kept = [];
  #ids = new Set();
  #revoked = new Set();
  #rows = new Map();
  #waiting = [];
  #strategies = new Set();
  #filter = () => true;
  #asking = 0;

  /** `onChosen(signal)` is told of a row that was chosen, `onWanted(symbol)` of a stock whose older signals are wanted. */
  constructor(onChosen, onWanted) {
    this.onChosen = onChosen;
    this.onWanted = onWanted;
    this.body = byId("rows");
    const filters = byId("filters");
    filters.addEventListener("input", () => {
      this.#refilter();
      this.#askOlder();
    });
    filters.addEventListener("submit", (event) => event.preventDefault());
    this.body.addEventListener("click", (event) => this.#choose(event.target.closest("tr")));
    this.body.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Take what was just published, oldest first; what is here already is left out. */
  take(signals) {
    const fresh = this.#fresh(signals).sort(inOrder);
    this.#kept.push(...fresh);
    this.#bound();
    if (this.#waiting.length === 0 && fresh.length) setTimeout(() => this.#show(), document.hidden ? 1000 : 50);
    this.#waiting.push(...fresh);
  }

  /** Take signals of before, wherever they belong. */
  takeOlder(signals) {
    this.#kept.push(...this.#fresh(signals));
    this.#kept.sort(inOrder);
    this.#bound();
    this.#refilter();
  }

  #fresh(signals) {
    const fresh = signals.filter(({ id }) => !this.#ids.has(id) && this.#ids.add(id));
    for (const { revokes, strategy } of fresh) {
      if (revokes) {
        this.#revoked.add(revokes);
        this.#rows.get(revokes)?.classList.add("revoked");
      }
      this.#name(strategy);
    }
    return fresh;
  }

  #bound() {
    if (this.#kept.length > KEPT) this.#forget(this.#kept.splice(0, this.#kept.length - KEPT));
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
    byId("no-rows").textContent = this.#kept.length
      ? "none of the newest signals passes this filter"
      : "no signals yet";
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

  /** Of one stock there may be more in the history than is held here. */
  #askOlder() {
    const text = byId("filter-text").value.trim();
    clearTimeout(this.#asking);
    if (CODE.test(text)) this.#asking = setTimeout(() => this.onWanted(text), 300);
  }

  #row(signal) {
    const { id, symbol, name, frame, action, strategy, confidence, price } = signal;
    const time = element("time", {
      datetime: signal.bar_end,
      text: minute(signal.bar_end),
      title: day(signal.bar_end),
    });
    const row = element(
      "tr",
      { "data-id": id, class: `${CLASSES[action] ?? ""} ${this.#revoked.has(id) ? "revoked" : ""}` },
      element("td", { class: "when" }, time, element("small", { text: frame })),
      element(
        "td",
        { class: "stock" },
        element(
          "button",
          { type: "button", title: "Show its chart" },
          element("b", { text: name ?? symbol }),
          element("small", { text: name ? symbol : "" }),
        ),
      ),
      element(
        "td",
        {},
        element("span", { class: "action", text: action }),
        element("small", { text: `${Math.round(confidence * 100)}%`, title: "confidence" }),
      ),
      element("td", { class: "number", text: price.toFixed(2) }),
      element(
        "td",
        { class: "why" },
        element("span", {}, ...breakable(strategy)),
        ...tags(signal).map((text) => element("small", { class: "tag", text })),
      ),
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

/** By publication and, of what one scan published, by confidence. */
function inOrder(a, b) {
  if (a.epoch !== b.epoch) return a.epoch < b.epoch ? -1 : 1;
  return a.published_ns - b.published_ns || a.confidence - b.confidence || a.seq - b.seq;
}

/** A name that may be broken after each underscore. */
const breakable = (name) => name.split(/(?<=_)/).flatMap((part) => [part, element("wbr")]);

/** What stands beside a signal: at its limit, of a bar still open, of a revised one, taking another back. */
function tags(signal) {
  return [
    signal.at_limit_up && "涨停",
    signal.at_limit_down && "跌停",
    signal.developing && "developing",
    signal.revision > 0 && `revision ${signal.revision}`,
    signal.revokes && "takes back",
  ].filter(Boolean);
}
