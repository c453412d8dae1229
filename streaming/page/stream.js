// /ws/signals: connects, comes back by itself, and goes on where it was.

import { refused, token } from "./session.js";

const PROTOCOL = "mystocks-scan.v1";
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const PING_EVERY_MS = 10_000;
const SILENT_MS = 25_000;
const UNAUTHORISED = 4401;

/** Calls `onSignals(list)` with what is published after `place` ({epoch, seq}), `onState({open, since, again})` when the
 * connection opens or is lost (times in ms), and `onGap(reason)` where something cannot be had any more. */
export class SignalStream {
  #socket = null;
  #attempt = 0;
  #lostAt = null;
  #heardAt = 0;
  #timer = 0;

  constructor({ place, onSignals, onState, onGap }) {
    this.place = place;
    this.onSignals = onSignals;
    this.onState = onState;
    this.onGap = onGap;
    setInterval(() => this.#watch(), PING_EVERY_MS);
    // A laptop that wakes up, or a telephone that finds its network again, need not wait.
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
    this.#connect();
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const url = new URL("/ws/signals", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const known = token();
    const socket = known === null ? new WebSocket(url) : new WebSocket(url, [PROTOCOL, `bearer.${known}`]);
    this.#socket = socket;
    this.#heardAt = Date.now();
    socket.onopen = () => {
      socket.send(JSON.stringify({ type: "subscribe", since: this.place }));
    };
    socket.onmessage = (event) => {
      this.#heardAt = Date.now();
      this.#take(JSON.parse(event.data));
    };
    socket.onclose = ({ code }) => {
      if (this.#socket === socket) this.#lose(code, known);
    };
  }

  #take({ type, epoch, seq, data }) {
    if (type === "subscribed") {
      this.#attempt = 0;
      this.#lostAt = null;
      this.onState({ open: true, since: null, again: null });
      if (data.recovered === false) this.onGap(data.reason);
    }
    if (type === "signals") this.onSignals(data);
    if (type === "subscribed" || type === "signals") this.place = { epoch, seq };
    if (type === "error") console.warn(`/ws/signals: ${data.reason}`);
  }

  #lose(code, known) {
    this.#socket = null;
    this.#lostAt ??= Date.now();
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#attempt) * (0.5 + Math.random() / 2);
    this.#attempt += 1;
    this.onState({ open: false, since: this.#lostAt, again: Date.now() + wait });
    if (code === UNAUTHORISED) refused(known).then(() => this.#hurry());
    else this.#timer = setTimeout(() => this.#connect(), wait);
  }

  #hurry() {
    if (this.#socket === null) {
      this.#attempt = 0;
      this.#connect();
    }
  }

  /** A connection whose other end vanished says nothing of it. */
  #watch() {
    const socket = this.#socket;
    if (socket === null) return;
    if (Date.now() - this.#heardAt > SILENT_MS) {
      socket.onclose = null;
      socket.close();
      this.#lose();
    } else if (socket.readyState === WebSocket.OPEN) {
      socket.send('{"type": "ping"}');
    }
  }
}
