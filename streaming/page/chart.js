// A stock's chart: asked for when a signal or a stock is chosen, and again as its bars go on.

import { byId, element, remembered } from "./dom.js";
import { fetchJson } from "./session.js";

const AVERAGES = "SMA(5), SMA(20), SMA(60), SMA(volume, 5)";
const PANES = [
  ["MA · MACD · KDJ", `${AVERAGES}, MACD, KDJ`],
  ["MA · MACD", `${AVERAGES}, MACD`],
  ["MA · KDJ", `${AVERAGES}, KDJ`],
  ["MA · RSI", `${AVERAGES}, RSI(14)`],
  ["BOLL · TDX MACD", "BOLL, SMA(volume, 5), TDX_MACD"],
  ["prices alone", ""],
];
const AGAIN_MS = 5_000;
const RESIZED = 80; // CSS pixels: more than a telephone's bars come and go by
const storage = () => localStorage;

/** Draws one stock at a time. `chosen` is {symbol, frame}, or null. */
export class Chart {
  chosen = null;
  #views = null;
  #asked = new AbortController();
  #drawnAt = 0;
  #barEnd = null;
  #timer = 0;
  #range = null;
  #height = 0;

  constructor() {
    this.figure = byId("figure");
    const panes = byId("panes");
    panes.append(...PANES.map(([text, value]) => element("option", { value, text })));
    panes.value = remembered(storage, "mystocks-scan panes") ?? PANES[0][1];
    if (panes.selectedIndex < 0) panes.selectedIndex = 0;
    panes.addEventListener("change", () => {
      remembered(storage, "mystocks-scan panes", panes.value);
      this.draw();
    });
    byId("frame").addEventListener("change", () => this.show(this.chosen?.symbol, byId("frame").value));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => {
      if (!this.#height || Math.abs(this.figure.clientHeight - this.#height) < RESIZED) return;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.draw(), 300);
    }).observe(this.figure);
  }

  /** The frames that there are bars of. */
  offer(frames) {
    const select = byId("frame");
    if ([...select.options].map((option) => option.value).join() === frames.join()) return;
    const before = select.value;
    select.replaceChildren(...frames.map((frame) => element("option", { text: frame })));
    select.value = this.chosen?.frame ?? (before || frames[0]);
  }

  /** Show a stock's bars of a frame, and beside them what a signal of it says. */
  show(symbol, frame, signal = null) {
    if (!symbol) return;
    this.chosen = { symbol, frame: frame || byId("frame").value };
    byId("frame").value = this.chosen.frame;
    byId("chosen").textContent = signal ? said(signal) : "";
    byId("chosen").hidden = !signal;
    this.draw();
  }

  /** Bars of `frame` reach to `barEnd`: what is shown is drawn again, but not without a pause. */
  goOn(frame, barEnd) {
    if (this.chosen?.frame !== frame || barEnd === this.#barEnd || this.#timer || document.hidden) return;
    if (this.figure.matches("[aria-busy]") || this.#lookedAt()) return;
    this.#timer = setTimeout(() => this.draw(), Math.max(0, this.#drawnAt + AGAIN_MS - Date.now()));
    this.#barEnd = barEnd;
  }

  /** Who hovers or has zoomed keeps what he looks at. */
  #lookedAt() {
    const range = this.#views && rangeOf(this.#views);
    return this.figure.matches(":hover") || (range && range.join() !== this.#range);
  }

  async draw() {
    if (!this.chosen) return;
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#asked.abort();
    const asked = (this.#asked = new AbortController());
    this.figure.setAttribute("aria-busy", "true");
    try {
      const colors = document.documentElement.dataset.colors;
      const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      const query = { ...this.chosen, indicators: byId("panes").value, colors, theme };
      const [bokeh, drawn] = await Promise.all([loadBokeh(), fetchJson("/api/chart", query, asked.signal)]);
      if (asked.signal.aborted) return;
      const place = element("div", { class: "drawing", role: "img", "aria-label": drawn.title });
      const old = this.#views;
      this.figure.replaceChildren(place);
      old?.clear();
      byId("chart-title").textContent = drawn.title;
      byId("facts").textContent = [...drawn.facts, ...drawn.caveats].join("  ·  ");
      byId("facts").hidden = false;
      this.#height = this.figure.clientHeight;
      fit(drawn.item, this.#height);
      this.#views = await bokeh.embed.embed_item(drawn.item, place);
      this.#range = rangeOf(this.#views).join();
      this.figure.dataset.symbol = drawn.symbol;
    } catch (error) {
      if (asked.signal.aborted) return;
      byId("chart-title").textContent = this.chosen.symbol;
      byId("facts").hidden = true;
      this.figure.replaceChildren(element("p", { class: "empty wrong", text: error.message }));
    } finally {
      if (this.#asked === asked) this.figure.removeAttribute("aria-busy");
      this.#drawnAt = Date.now();
    }
  }
}

const rangeOf = (views) => {
  const { start, end } = views.roots[0].model.children[0].x_range;
  return [start, end];
};

/** What made a signal fire, and how long that took. */
function said({ action, strategy, values, received_ns: received, published_ns: published }) {
  const numbers = Object.entries(values).map(
    ([term, value]) => `${term} = ${value == null ? "–" : Number(value.toPrecision(6))}`,
  );
  const took = received ? [`${Math.round((published - received) / 1e6)} ms from quote to signal`] : [];
  return [`${action} ${strategy}`, ...numbers, ...took].join("  ·  ");
}

/** Give the parts of a chart, one below the other, the height that there is, but no less than can be read. */
function fit(item, height) {
  const parts = item.doc.roots[0].attributes.children.map((part) => part.attributes);
  parts[0].above = (parts[0].above ?? []).filter((part) => part.name !== "Title"); // it stands above already
  const wanted = parts.reduce((sum, part) => sum + part.height, 0);
  const share = Math.max(height / wanted, 0.5);
  for (const part of parts) part.height = Math.floor(part.height * share);
}

let loading = null;

/** BokehJS from this server, when the first chart is wanted. Its own style sheets carry the page's nonce, for which
 * alone the server lets them in. */
function loadBokeh() {
  loading ??= new Promise((resolve, reject) => {
    const nonce = document.querySelector("meta[name=style-nonce]").content;
    const create = document.createElement.bind(document);
    document.createElement = (name, ...more) => {
      const made = create(name, ...more);
      if (name === "style") made.nonce = nonce;
      return made;
    };
    const script = create("script");
    script.src = "/page/bokeh.min.js";
    script.onload = () => {
      Bokeh.set_log_level("warn");
      resolve(Bokeh);
    };
    script.onerror = () => {
      loading = null;
      reject(new Error("BokehJS, which draws the charts, did not come"));
    };
    document.head.append(script);
  });
  return loading;
}
