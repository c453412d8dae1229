import { useEffect, useRef, useState } from "react";
import { connectSignals } from "../javascript/signals.js";

const NOTHING_YET = { signals: [], status: { state: "connecting", attempt: 0 }, missed: undefined };

/**
 * Signals of mystocks-scan's /ws/signals in a React component: `{ signals, status, missed }`, types in useSignals.d.ts.
 *
 *     const { signals, status, missed } = useSignals({ url: "ws://127.0.0.1:8765/ws/signals", actions: ["BUY"] });
 */
export function useSignals({ limit = 200, storage, WebSocket, ...subscription }) {
  const [shown, setShown] = useState(NOTHING_YET);
  const bound = useRef(limit);
  useEffect(() => {
    bound.current = limit;
  }, [limit]);
  const asked = JSON.stringify(subscription); // a list written in the component is a new one at each render
  useEffect(() => {
    setShown(NOTHING_YET);
    const { close } = connectSignals({
      ...JSON.parse(asked),
      storage,
      ...(WebSocket && { WebSocket }),
      onSignals: (fresh) =>
        setShown((before) => ({ ...before, signals: [...fresh].reverse().concat(before.signals).slice(0, bound.current) })),
      onStatus: (status) =>
        setShown((before) => ({ ...before, status, missed: status.recovered === false ? status.reason : before.missed })),
    });
    return close;
  }, [asked, storage, WebSocket]);
  return { ...shown, signals: shown.signals.slice(0, limit) };
}
