/** The module under Node, against the real server. */
import { createServer } from "node:net";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import WebSocket from "ws";
import { connectSignals } from "../javascript/signals.js";
import { collected, folder, root, serve } from "./server.js";

const BACKOFF = [20, 200];
let place, server, subscriptions;

beforeAll(async () => {
  place = folder();
  server = await serve(join(place.path, "signals"));
});

beforeEach(() => {
  subscriptions = [];
});

afterEach(() => subscriptions.forEach(({ close }) => close()));

afterAll(async () => {
  await server.kill();
  place.remove();
});

function subscribe(options = {}) {
  const signals = collected();
  const statuses = collected();
  const subscription = connectSignals({
    url: server.url,
    WebSocket,
    backoffMs: BACKOFF,
    onSignal: signals.push,
    onStatus: statuses.push,
    ...options,
  });
  subscriptions.push(subscription);
  const live = () => statuses.until((all) => all.at(-1)?.state === "live");
  const ids = async (wanted) => {
    await signals.until((all) => wanted.every((id) => all.some((signal) => signal.id === id)));
    return signals.items.map((signal) => signal.id);
  };
  return { ...subscription, place: () => subscription.place, signals, statuses: statuses.items, status: statuses, live, ids };
}

test("signals arrive, as they were published", async () => {
  const { live, ids, signals } = subscribe();
  await live();
  const published = await server.publish({ symbol: "600519.SH", name: "贵州茅台" }, { symbol: "000001.SZ", action: "SELL" });
  expect(await ids(published)).toEqual(published);
  expect(signals.items[0]).toMatchObject({ symbol: "600519.SH", name: "贵州茅台", action: "BUY", price: 10 });
});

test.each([
  [{ symbols: ["sz000001"] }, [1]],
  [{ strategies: ["rsi"] }, [2]],
  [{ actions: ["SELL", "ALERT"] }, [1, 3]],
  [{ minConfidence: 0.9 }, [3]],
])("filter %j", async (filter, wanted) => {
  const { live, ids } = subscribe(filter);
  await live();
  const published = await server.publish(
    {},
    { symbol: "000001.SZ", action: "SELL" },
    { strategy: "rsi" },
    { action: "ALERT", confidence: 0.95, symbol: "000002.SZ" },
  );
  const expected = wanted.map((number) => published[number]);
  expect(await ids(expected)).toEqual(expected);
});

test("a lost connection is made again, and what was published meanwhile comes once", async () => {
  const { live, ids, status } = subscribe();
  await live();
  const before = await server.publish({}, {});
  await ids(before);
  await server.drop();
  const after = await server.publish({}, {}, {});
  expect(await ids(after)).toEqual([...before, ...after]);
  await live();
  expect(status.items.map(({ state }) => state)).toEqual(["connecting", "live", "waiting", "connecting", "live"]);
  expect(status.items.at(-1).recovered).toBe(true);
});

test("a server that is killed and started again, in a new epoch, costs and doubles nothing", async () => {
  const { live, ids, place: at } = subscribe();
  await live();
  const before = await server.publish({}, {});
  await ids(before);
  const { port, epoch } = server;
  await server.kill();
  server = await serve(join(place.path, "signals"), { port });
  expect(server.epoch > epoch).toBe(true);
  const after = await server.publish({}, {});
  expect(await ids(after)).toEqual([...before, ...after]);
  expect(at()).toEqual({ epoch: server.epoch, seq: 2 });
});

test("what the server sends twice is given once, and what is remembered for that is bounded", async () => {
  const { live, ids, place: at } = subscribe();
  await live();
  const published = await server.publish({}, {}, {});
  await ids(published);
  const twice = await doubling(server.url, { ...at(), seq: at().seq - 3 });
  const one = subscribe({ url: twice.url });
  expect(await one.ids(published)).toEqual(published);
  await one.status.until((all) => all.filter(({ state }) => state === "live").length === 2);
  expect(one.signals.items.map(({ id }) => id)).toEqual(published);
  const forgetful = subscribe({ url: twice.url, rememberIds: 1 });
  await forgetful.signals.until((all) => all.length === 5); // of three, the newest alone is remembered
  twice.close();
});

/** A proxy that has every subscription begin at one place, and breaks each connection after the first answer. */
async function doubling(url, since) {
  const { WebSocketServer } = await import("ws");
  const proxy = new WebSocketServer({ port: 0 });
  await once(proxy, "listening");
  proxy.on("connection", (client) => {
    const upstream = new WebSocket(url);
    client.on("message", async (text) => {
      if (upstream.readyState !== WebSocket.OPEN) await once(upstream, "open");
      upstream.send(JSON.stringify({ ...JSON.parse(text), since }));
    });
    upstream.on("message", (text) => {
      client.send(String(text));
      if (JSON.parse(text).type === "signals") client.terminate();
    });
    client.on("close", () => upstream.terminate());
  });
  return { url: `ws://127.0.0.1:${proxy.address().port}/ws/signals`, close: () => proxy.close() };
}

test("the place outlives the program where a storage is given", async () => {
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
  const first = subscribe({ storage });
  await first.live();
  const before = await server.publish({});
  await first.ids(before);
  first.close();
  const between = await server.publish({}, {});
  const second = subscribe({ storage });
  expect(await second.ids(between)).toEqual(between);
  expect((await second.live()).at(-1).recovered).toBe(true);
});

test("a gap is told, and signals go on", async () => {
  const { live, ids } = subscribe({ since: { epoch: "20200101T0000000000000000", seq: 7 } });
  const status = (await live()).at(-1);
  expect(status).toMatchObject({ state: "live", recovered: false });
  expect(status.reason).toMatch(/missed: /);
  const published = await server.publish({});
  expect(await ids(published)).toEqual(published);
});

test("a server that starts later is waited for", async () => {
  const { port } = server;
  await server.stop();
  const { live, status } = subscribe();
  await status.until((all) => all.filter(({ state }) => state === "waiting").length >= 2);
  expect(status.items.find(({ state }) => state === "waiting").reason).toMatch(/ECONNREFUSED/);
  server = await serve(join(place.path, "signals"), { port });
  await live();
});

test("a server that accepts and says nothing is left, and another tried", async () => {
  const waits = hurried();
  const mute = createServer(() => {}).listen(0, "127.0.0.1");
  await once(mute, "listening");
  const { status } = subscribe({ url: `ws://127.0.0.1:${mute.address().port}/ws/signals` });
  await status.until((all) => all.some(({ reason }) => /does not answer/.test(reason)));
  waits.restore();
  mute.close();
});

/** Waits of ten seconds and more pass at once. */
function hurried() {
  const real = globalThis.setTimeout;
  globalThis.setTimeout = (call, ms, ...more) => real(call, ms >= 10_000 ? 50 : ms, ...more);
  return { restore: () => (globalThis.setTimeout = real) };
}

test("a refused subscription ends it, with the server's words", async () => {
  const { status } = subscribe({ symbols: ["999"] });
  const all = await status.until((seen) => seen.at(-1)?.state === "closed");
  expect(all.at(-1).reason).toMatch(/999/);
});

test("what is too long to ask ends it with a remedy", async () => {
  const { status } = subscribe({ symbols: Array.from({ length: 2000 }, (_, number) => `${600_000 + number}.SH`) });
  await status.until((all) => all.at(-1)?.state === "closed");
  expect(status.items.at(-1).reason).toMatch(/fewer symbols/);
});

test("a token opens, a wrong one or a revoked one ends it with a remedy, and none is ever told", async () => {
  const own = folder();
  const guarded = await serve(join(own.path, "signals"), { options: ["--token"] });
  const refused = { state: "closed", reason: expect.stringContaining("mystocks-scan token new") };
  for (const token of [undefined, "mss_wrong"]) {
    const { status } = subscribe({ url: guarded.url, token });
    const all = await status.until((seen) => seen.at(-1)?.state === "closed");
    expect(all).toEqual([{ state: "connecting", attempt: 0 }, refused]);
    expect(JSON.stringify(all)).not.toContain("mss_");
  }
  const { live, ids, status } = subscribe({ url: guarded.url, token: guarded.token });
  await live();
  const published = await guarded.publish({});
  expect(await ids(published)).toEqual(published);
  await guarded.revoke();
  await status.until((seen) => seen.at(-1)?.state === "closed");
  expect(status.items.at(-1)).toEqual(refused);
  await guarded.kill();
  own.remove();
});

test("a service that stops says so", async () => {
  const { port } = server;
  const { live, status } = subscribe();
  await live();
  await server.stop();
  const waiting = ({ state }) => state === "waiting";
  await status.until((all) => all.some(waiting));
  expect(status.items.find(waiting).reason).toBe("the service stops");
  server = await serve(join(place.path, "signals"), { port });
});

test("closed is closed, also before the first connection", async () => {
  const { close, status } = subscribe();
  close();
  close();
  const other = subscribe();
  await other.live();
  await clients(1);
  other.close();
  expect(status.items).toEqual([{ state: "closed", reason: undefined }]);
  expect(other.status.items.at(-1)).toEqual({ state: "closed", reason: undefined });
});

/** Wait until the server has so many. */
async function clients(number) {
  while ((await server.clients()) !== number);
}

test("the program of docs/subscribers.md", async () => {
  const page = readFileSync(join(root, "docs", "subscribers.md"), "utf8");
  const [, program] = page.match(/^<!-- client javascript -->\n```js\n(.*?)^```$/ms);
  const text = program.replace("./clients/", "./").replace(/ws:[^"]+/, server.url);
  const before = 'import WebSocket from "ws"; globalThis.WebSocket ??= WebSocket;';
  const child = spawn(process.execPath, ["--input-type=module", "-e", before + text], { cwd: join(root, "clients") });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const states = createInterface(child.stderr)[Symbol.asyncIterator]();
  while ((await states.next()).value !== "live ");
  await server.publish({ symbol: "000001.SZ", action: "SELL" });
  expect((await lines.next()).value).toBe("000001.SZ SELL 10");
  child.kill();
});

test("without a WebSocket it says what to do", () => {
  expect(() => connectSignals({ url: server.url, WebSocket: null })).toThrow(/package ws/);
});
