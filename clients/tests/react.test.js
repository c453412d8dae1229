/** The hook in a DOM, with the React that vitest.config.js names, against the real server. */
import { join } from "node:path";
import { StrictMode, createElement, version } from "react";
import { createRoot } from "react-dom/client";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { useSignals } from "../react/useSignals.js";
import { folder, serve } from "./server.js";

let place, server, root, page;

beforeAll(async () => {
  place = folder();
  server = await serve(join(place.path, "signals"));
});

beforeEach(() => {
  page = document.body.appendChild(document.createElement("div"));
  root = createRoot(page);
});

afterEach(async () => {
  root.unmount();
  while (await server.clients());
  page.remove();
});

afterAll(async () => {
  await server.kill();
  place.remove();
});

function Signals(options) {
  const { signals, status, missed } = useSignals(options);
  return createElement(
    "div",
    { "data-state": status.state, "data-reason": status.reason, "data-missed": missed },
    signals.map(({ id, symbol }) => createElement("p", { key: id, id }, symbol)),
  );
}

const show = (options = {}) =>
  root.render(createElement(StrictMode, null, createElement(Signals, { url: server.url, ...options })));
const shown = () => [...page.querySelectorAll("p")].map(({ id }) => id);
const box = () => page.firstChild?.dataset ?? {};

/** Wait until something holds of the page. */
async function until(holds) {
  while (!holds()) {
    await new Promise((resolve) => {
      const watching = new MutationObserver(() => (watching.disconnect(), resolve()));
      watching.observe(page, { attributes: true, childList: true, subtree: true });
    });
  }
}

test(`signals come newest first, with a bound (${version})`, async () => {
  show({ limit: 3 });
  await until(() => box().state === "live");
  const published = [...(await server.publish({}, {})), ...(await server.publish({}, {}))];
  await until(() => shown().includes(published[3]));
  expect(shown()).toEqual([published[3], published[2], published[1]]);
  show({ limit: 1 });
  await until(() => shown().length === 1);
  expect(shown()).toEqual([published[3]]);
});

test("StrictMode's double mount makes one connection, so does each subscription, and unmounting closes it", async () => {
  let made = 0;
  class Counted extends WebSocket {
    constructor(...options) {
      super(...options);
      made += 1;
    }
  }
  const live = async (actions, number) => {
    show({ WebSocket: Counted, actions });
    await until(() => made === number && box().state === "live");
    while ((await server.clients()) !== 1);
  };
  await live(undefined, 1);
  await live(["BUY"], 2);
  await live(["BUY"], 2); // an equal list is no other filter
  root.unmount();
  while (await server.clients());
  expect(made).toBe(2);
  root = createRoot(page);
});

test("filters", async () => {
  show({ symbols: ["000001.SZ"], actions: ["SELL"] });
  await until(() => box().state === "live");
  const [, wanted] = await server.publish({}, { symbol: "000001.SZ", action: "SELL" }, { symbol: "000001.SZ" });
  await until(() => shown().length);
  expect(shown()).toEqual([wanted]);
});

test("a server killed and started again: the state says so, nothing is missed or doubled", async () => {
  show();
  await until(() => box().state === "live");
  const before = await server.publish({}, {});
  await until(() => shown().length === 2);
  await server.kill();
  await until(() => box().state !== "live");
  server = await serve(join(place.path, "signals"), { port: server.port });
  const after = await server.publish({});
  await until(() => shown().length === 3);
  expect(shown()).toEqual([...after, ...before.reverse()]);
});

test("a wrong token: the state and the reason say so", async () => {
  const own = folder();
  const guarded = await serve(join(own.path, "signals"), { options: ["--token"] });
  show({ url: guarded.url, token: "mss_wrong" });
  await until(() => box().state === "closed");
  expect(box().reason).toMatch(/mystocks-scan token new/);
  show({ url: guarded.url, token: guarded.token });
  await until(() => box().state === "live");
  await guarded.kill();
  own.remove();
});

test("a gap is told", async () => {
  show({ since: { epoch: "20200101T0000000000000000", seq: 7 } });
  await until(() => box().state === "live");
  expect(box().missed).toMatch(/missed/);
});
