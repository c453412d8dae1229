/**
 * A subscriber of mystocks-scan's /ws/signals, for browsers and Node 18 or newer: connects again after a loss, goes on
 * where it was, and gives each signal once. No dependencies; types in signals.d.ts; the protocol in docs/subscribers.md.
 *
 *     import { connectSignals } from "./signals.js";
 *     const subscription = connectSignals({
 *       url: "ws://127.0.0.1:8765/ws/signals",
 *       onSignal: (signal) => console.log(signal.symbol, signal.action, signal.price),
 *       onStatus: (status) => console.log(status.state, status.reason ?? ""),
 *     });
 */

const PROTOCOL = "mystocks-scan.v1";
const QUIET_MS = 30_000;
/** So long nothing came: the server is asked whether it is there. */
const ANSWER_MS = 10_000;
/** So long it may take to answer that, to connect, and to take the subscription. */
const UNREACHABLE =
  "cannot connect: no server there, or it refused (a browser is not told which): check address, token and allowed origins";

const ENDED = {
  1009: "what it was asked is too long: ask for fewer symbols",
  4401: "a token is needed, or the one that was shown is not known: 'mystocks-scan token new' makes one where the service runs",
};
/** Why a connection ended, by the code that the server closed it with: after those coming back does not help, after these it does. */
const CLOSED = {
  1001: "the service stops",
  1011: "the service failed, and its log has the reason",
  4408: "too much was left unread",
  4410: "the service has lost signals that came next",
  4429: "it was said too much, or there are too many connections from here",
};

/** Subscribe; returns `{ close(), place }`. What the options and statuses are stands in signals.d.ts. */
export function connectSignals({
  url,
  token,
  symbols,
  strategies,
  actions,
  minConfidence,
  since,
  onSignal,
  onSignals,
  onStatus,
  storage,
  storageKey = `mystocks-scan ${url}`,
  backoffMs: [firstMs, longestMs] = [500, 30_000],
  rememberIds = 10_000,
  WebSocket: Socket = globalThis.WebSocket,
}) {
  if (!Socket) throw new Error("there is no WebSocket here (Node before 22): pass one, of the package ws, as option WebSocket");
  const protocols = token ? [PROTOCOL, `bearer.${token}`] : []; // a page can set no header
  const wanted = { type: "subscribe", symbols, strategies, actions, min_confidence: minConfidence };
  const seen = new Set();
  let place = since ?? stored();
  let socket, timer, attempt = 0, over = false;

  function stored() {
    try {
      const found = JSON.parse(storage?.getItem(storageKey) ?? "null");
      return typeof found?.epoch === "string" && found.seq >= 0 && Number.isInteger(found.seq) ? found : undefined;
    } catch {
      return undefined; // something else lies there, or the browser allows no storage
    }
  }

  function keep() {
    try {
      storage?.setItem(storageKey, JSON.stringify(place));
    } catch (error) {
      rethrow(error); // a full storage stops no signals
    }
  }

  function told(call, value) {
    try {
      call?.(value);
    } catch (error) {
      rethrow(error); // a fault of the caller's costs no other signal
    }
  }

  /** Wait for the next message, and first ask for one; a dead connection is not closed by anybody else. */
  function watch(ms, then) {
    clearTimeout(timer);
    timer = setTimeout(then, ms);
  }

  function open() {
    if (over) return;
    told(onStatus, { state: "connecting", attempt });
    const current = (socket = new Socket(url, protocols));
    let why = UNREACHABLE;
    let lost = false;
    const lose = (reason) => {
      if (lost || over) return;
      lost = true;
      clearTimeout(timer);
      current.close();
      again(reason);
    };
    watch(ANSWER_MS, () => lose("the server does not answer"));
    current.addEventListener("open", () => {
      why = "the connection was lost";
      current.send(JSON.stringify({ ...wanted, since: place }));
    });
    current.addEventListener("error", (event) => {
      if (event.message) why = event.message; // Node's alone say more
    });
    current.addEventListener("close", ({ code, reason }) => {
      if (lost) return;
      // A page is told by a code, Node by the status of the answer.
      const final = ENDED[/ 401$/.test(why) ? 4401 : code];
      if (final) end(final);
      else lose(code === 1006 ? why : CLOSED[code] ?? `closed by the service (${code}) ${reason}`);
    });
    current.addEventListener("message", ({ data }) => {
      if (lost || over) return;
      watch(QUIET_MS, () => {
        current.send('{"type":"ping"}');
        watch(ANSWER_MS, () => lose("the server does not answer"));
      });
      take(JSON.parse(data));
    });
  }

  function take({ v, type, data, epoch, seq }) {
    if (v !== 1) return end(`the server speaks version ${v} of the protocol, this client version 1`);
    if (type === "error") return end(`the server refuses: ${data.reason}`);
    if (type === "subscribed") {
      attempt = 0;
      const missed = data.recovered === false ? data.reason : undefined;
      told(onStatus, { state: "live", recovered: data.recovered, ...(missed && { reason: `signals were missed: ${missed}` }) });
    } else if (type === "signals") {
      const fresh = data.filter(({ id }) => !seen.has(id) && seen.add(id));
      while (seen.size > rememberIds) seen.delete(seen.values().next().value);
      if (fresh.length) told(onSignals, fresh);
      for (const signal of fresh) told(onSignal, signal);
    } else return; // hello and pong are no place in what was subscribed
    place = { epoch, seq };
    keep();
  }

  function again(reason) {
    const retryInMs = Math.min(longestMs, firstMs * 2 ** Math.min(attempt, 30)) * (0.5 + Math.random() / 2);
    attempt += 1;
    timer = setTimeout(open, retryInMs);
    told(onStatus, { state: "waiting", reason, retryInMs });
  }

  function end(reason) {
    if (over) return;
    over = true;
    clearTimeout(timer);
    socket?.close();
    told(onStatus, { state: "closed", reason });
  }

  queueMicrotask(open); // who closes at once, as React's StrictMode does, opens nothing
  return {
    close: () => end(),
    get place() {
      return place;
    },
  };
}

function rethrow(error) {
  setTimeout(() => {
    throw error;
  });
}
