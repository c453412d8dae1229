/** A place in the stream of signals: everything up to it was received, or not wanted. */
export interface Place {
  epoch: string;
  seq: number;
}

/** One signal, as /ws/signals sends it. Stamps (`_ns`) are UTC nanoseconds, rounded by JavaScript to some 200 ns; 0 where a stage did not happen. */
export interface Signal {
  id: string;
  epoch: string;
  seq: number;
  strategy: string;
  version: string;
  symbol: string;
  name: string | null;
  frame: "1m" | "5m" | "15m" | "30m" | "60m" | "1d";
  /** ISO 8601, UTC. */
  bar_end: string;
  /** The bar was still open: it may yet turn out otherwise. */
  developing: boolean;
  action: "BUY" | "SELL" | "ALERT";
  confidence: number;
  /** CNY, the bar's raw close. */
  price: number;
  /** The values that made it fire; null where one is not a finite number. */
  values: Record<string, number | null>;
  engine: string;
  /** ISO 8601, UTC: the first bar its indicators saw. */
  origin: string;
  at_limit_up: boolean | null;
  at_limit_down: boolean | null;
  revision: number;
  /** The id of the signal that this one takes back. */
  revokes: string | null;
  quote_ns: number;
  received_ns: number;
  bar_closed_ns: number;
  scanned_ns: number;
  published_ns: number;
}

export type Status =
  | { state: "connecting"; attempt: number }
  /** Subscribed. `recovered`: whether what followed the place gone on from comes without gap; undefined where there was none. */
  | { state: "live"; recovered?: boolean; reason?: string }
  /** Not connected; `reason` is a sentence for people. */
  | { state: "waiting"; reason: string; retryInMs: number }
  /** For good: by close(), or, with a `reason`, because the server refuses what was asked. */
  | { state: "closed"; reason?: string };

/** What localStorage and sessionStorage are. */
export interface PlaceStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

export interface Filter {
  /** Symbols in any spelling: 600519.SH, sh600519. Lists left out let all pass. */
  symbols?: string[];
  strategies?: string[];
  actions?: Signal["action"][];
  /** 0 to 1. */
  minConfidence?: number;
}

export interface Subscription extends Filter {
  /** ws://127.0.0.1:8765/ws/signals */
  url: string;
  /** Where the server asks for one. */
  token?: string;
  /** Go on behind this place; it stands above that of the storage. */
  since?: Place;
  /** Where the place is kept when signals have been handed over, so that the next start goes on there. */
  storage?: PlaceStorage;
  /** By default one for each URL: subscriptions with different filters need different ones. */
  storageKey?: string;
  /** A constructor like the browser's; needed in Node before 22, which has none: that of the package ws. */
  WebSocket?: unknown;
}

export interface Options extends Subscription {
  /** Each signal once, in order. */
  onSignal?(signal: Signal): void;
  /** The same, a message at a time. */
  onSignals?(signals: Signal[]): void;
  onStatus?(status: Status): void;
  /** The first and the longest wait before connecting again, doubled each time and shortened at random. By default 500 and 30000. */
  backoffMs?: [first: number, longest: number];
  /** How many ids are remembered to leave out what comes twice. By default 10000. */
  rememberIds?: number;
}

/** Subscribe. Throws where there is no WebSocket. */
export function connectSignals(options: Options): {
  close(): void;
  /** Where it stands; undefined before it is subscribed for the first time. */
  readonly place: Place | undefined;
};
