import type { Signal, Status, Subscription } from "../javascript/signals.js";

/**
 * `signals`: the newest `limit` (200), newest first. `missed`: why signals were missed, once some were, until the
 * subscription changes. Another url, token, filter, since, storage or WebSocket is another subscription and begins anew;
 * lists are compared by what they hold.
 */
export function useSignals(options: Subscription & { limit?: number }): {
  signals: Signal[];
  status: Status;
  missed: string | undefined;
};
