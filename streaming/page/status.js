// Market breadth, and how the scan, the feed and each stage are.

import { byId, count, day, element, milliseconds, minute, seconds } from "./dom.js";
import { fetchJson } from "./session.js";

const EVERY_MS = 2_000;
const HIDDEN_EVERY_MS = 15_000;

/** Asks /api/status again and again; `onStatus(status)` with each answer, `onFailed(error)` where there is none. */
export function follow(onStatus, onFailed) {
  let timer = 0;
  async function ask() {
    clearTimeout(timer);
    try {
      const status = await fetchJson("/api/status", {}, AbortSignal.timeout(10_000));
      show(status);
      onStatus(status);
    } catch (error) {
      onFailed(error);
    }
    timer = setTimeout(ask, document.hidden ? HIDDEN_EVERY_MS : EVERY_MS);
  }
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  return ask();
}

function show(status) {
  byId("breadth").replaceChildren(...breadth(status));
  byId("scan").replaceChildren(...scan(status));
  byId("feed").replaceChildren(...feed(status));
  byId("latency").replaceChildren(...latency(status));
}

const empty = (text) => [element("p", { class: "empty", text })];
const ELSEWHERE = "The feed and the scan run in another process; this one serves their signals.";

function breadth({ breadth: found, elsewhere }) {
  if (elsewhere) return empty(`market breadth: ${ELSEWHERE}`);
  if (!found) return empty("market breadth: no interval has closed yet");
  const { up, down, unchanged, limit_up: limitUp, limit_down: limitDown, symbols, of } = found;
  const share = (number, name) => element("span", { class: name, "data-share": number });
  const bar = element(
    "div",
    { class: "shares", "aria-hidden": "true" },
    share(up, "up"),
    share(unchanged, "flat"),
    share(down, "down"),
  );
  for (const part of bar.children) part.style.flexGrow = part.dataset.share;
  const figure = (label, number, name) =>
    element("p", { class: name }, element("b", { text: count(number) }), element("small", { text: label }));
  return [
    figure("up", up, "up"),
    figure("涨停 limit up", limitUp, "up"),
    element(
      "div",
      { class: "middle" },
      bar,
      element("small", {
        text: `${count(unchanged)} unchanged · ${count(symbols)} of ${count(of)} traded`,
      }),
    ),
    figure("跌停 limit down", limitDown, "down"),
    figure("down", down, "down"),
  ];
}

function scan({ scans, elsewhere }) {
  if (elsewhere) return empty(ELSEWHERE);
  if (!scans.length) return empty("no scan yet");
  const gated = scans.some((one) => one.ready);
  const head = ["frame", "bar end", "scan", "latency", "signals", "symbols", ...(gated ? ["ready"] : [])];
  const rows = scans.map((one) => [
    one.developing ? `${one.frame} so far` : one.frame,
    `${day(one.bar_end).slice(5)} ${minute(one.bar_end)}`,
    milliseconds(one.scan_ms),
    milliseconds(one.latency_ms),
    count(one.signals),
    count(one.symbols),
    ...(gated ? [one.ready ? `${count(one.ready.ready)}/${count(one.ready.symbols)}` : "all"] : []),
  ]);
  const engines = [...new Set(scans.map((one) => one.engine))].join(", ");
  const fallbacks = scans.flatMap((one) => one.fallbacks.map((why) => `${one.frame} fell back: ${why}`));
  const said = fallbacks.length ? `${fallbacks.length} fallbacks` : "no fallbacks";
  const sum = (name) => count(scans.reduce((total, one) => total + one[name], 0));
  const failed = scans.flatMap((one) =>
    Object.entries(one.failed).map(([name, why]) => `${name} was switched off: ${why}`),
  );
  return [
    table(head, rows),
    element("p", { class: "under", text: `engine ${engines}, ${sum("indicators")} indicators, ${said}` }),
    element("p", { class: "under", text: `${sum("silent")} signals kept silent by a cooldown` }),
    ...[...fallbacks, ...failed].map((text) => element("p", { class: "wrong", text })),
  ];
}

function feed({ feed: found, elsewhere }) {
  if (elsewhere) return empty("The feed runs in another process.");
  const under = element("p", { class: "under", text: found.said });
  if (!found.providers.length)
    return [
      table(
        ["feed", "symbols", "newest bar", "received"],
        [
          [
            found.name,
            count(found.symbols),
            found.bar_end ? `${day(found.bar_end)} ${minute(found.bar_end)}` : "–",
            found.received_s == null ? "–" : `${seconds(found.received_s)} ago`,
          ],
        ],
      ),
      under,
    ];
  const head = ["provider", "state", "conn.", "frames", "quote age", "stale", "reconn.", "dropped"];
  const rows = found.providers.map((one) => [
    one.name,
    { text: one.state, class: `state ${one.state}` },
    `${one.connected}/${one.connections}`,
    count(one.frames),
    seconds(one.quote_age_s),
    count(one.symbols_stale),
    counts(one.reconnects),
    counts(one.dropped),
  ]);
  const said = found.providers
    .filter((one) => one.said)
    .map((one) => element("p", { class: "under", text: `${one.name}: ${one.said}` }));
  return [table(head, rows), under, ...said];
}

function latency({ latency: found }) {
  const seen = found.stages.filter((stage) => stage.n > 0);
  if (!seen.length) return empty("no live signals yet");
  const rows = seen.map((stage) => [stage.stage, milliseconds(stage.p50_ms), milliseconds(stage.p99_ms)]);
  return [
    table(["stage", "p50", "p99"], rows),
    element("p", { class: "under", text: `over the last ${count(found.intervals)} intervals with signals` }),
  ];
}

/** `timeout 3, stale 1`, the most first. */
const counts = (numbers) =>
  Object.entries(numbers)
    .sort(([, a], [, b]) => b - a)
    .map(([reason, n]) => `${reason} ${count(n)}`)
    .join(", ") || "0";

function table(head, rows) {
  const cell = (value, column) => {
    const made = element("td", typeof value === "object" ? value : { text: value });
    if (column > 0) made.classList.add("number");
    return made;
  };
  return element(
    "table",
    { class: "figures" },
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        ...head.map((text, column) => element("th", { scope: "col", text, class: column > 0 ? "number" : null })),
      ),
    ),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))),
  );
}
