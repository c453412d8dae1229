// The page: what the server publishes and how it is, put together.

import { Chart } from "./chart.js";
import { byId, day, minute, remembered, wallClock } from "./dom.js";
import { search } from "./search.js";
import { fetchJson } from "./session.js";
import { SignalTable } from "./signals.js";
import { follow } from "./status.js";
import { SignalStream } from "./stream.js";

const HISTORY = 500;
const storage = () => localStorage;

const chart = new Chart();
const table = new SignalTable(
  (signal) => {
    chart.show(signal.symbol, signal.frame, signal);
    if (matchMedia("(max-width: 60rem)").matches) byId("chart-title").scrollIntoView({ behavior: "smooth" });
  },
  (symbol) =>
    fetchJson("/api/signals", { symbol, limit: HISTORY }).then(
      ({ signals }) => table.takeOlder(signals),
      () => {},
    ),
);
search((symbol) => chart.show(symbol));

const said = { lost: null, failed: null, stale: null, gap: null };

/** One line for everything that is wrong, the worst first. */
function notice() {
  const text = [said.lost, said.failed, said.stale, said.gap].filter(Boolean)[0] ?? "";
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

function onState({ open, since, again }) {
  const pill = byId("link");
  pill.textContent = open ? "live" : "connection lost";
  pill.className = `pill ${open ? "good" : "bad"}`;
  said.lost = open
    ? null
    : `Connection lost since ${wallClock(since)}; trying again at ${wallClock(again)}. What is missed meanwhile comes when it is back.`;
  if (open) said.gap = null;
  notice();
}

function onStatus(status) {
  said.failed = null;
  said.stale = status.stale
    ? `${status.stale.text} since ${day(status.stale.since)} ${minute(status.stale.since)}`
    : null;
  const { market } = status;
  byId("market").textContent = market.text;
  byId("market").className = `pill ${status.stale ? "bad" : market.state === "open" ? "good" : ""}`;
  byId("market").hidden = false;
  byId("clock").textContent = market.bar_end ? `${day(market.bar_end)} ${minute(market.bar_end)}` : "";
  chart.offer(status.frames);
  const newest = Object.fromEntries(status.scans.map((one) => [one.frame, one.bar_end]));
  if (chart.chosen) chart.goOn(chart.chosen.frame, newest[chart.chosen.frame] ?? null);
  notice();
}

let failedSince = null;
function onFailed() {
  failedSince = said.failed ? failedSince : Date.now();
  said.failed = `No word from the server since ${wallClock(failedSince)}.`;
  notice();
}

/** The newest signals there are, and from where on the rest comes. */
async function history() {
  const { signals, place } = await fetchJson("/api/signals", { limit: HISTORY });
  table.takeOlder(signals);
  return { newest: signals[0], place };
}

async function onGap(reason) {
  said.gap = `Some signals may be missing: ${reason}`;
  notice();
  await history().catch(onFailed);
}

function switchColors(colors) {
  document.documentElement.dataset.colors = colors;
  const button = byId("colors");
  button.textContent = colors === "cn" ? "red up" : "green up";
  button.setAttribute("aria-pressed", String(colors !== "cn"));
  remembered(storage, "mystocks-scan colors", colors);
}

switchColors(remembered(storage, "mystocks-scan colors") === "western" ? "western" : "cn");
byId("colors").addEventListener("click", () => {
  switchColors(document.documentElement.dataset.colors === "cn" ? "western" : "cn");
  chart.draw();
});

async function start() {
  try {
    const { newest, place } = await history();
    new SignalStream({ place, onSignals: (fresh) => table.take(fresh), onState, onGap });
    if (newest && !chart.chosen) chart.show(newest.symbol, newest.frame, newest);
  } catch {
    onFailed();
    setTimeout(start, 2000);
  }
}

await start();
await follow(onStatus, onFailed);
