/** What the declarations must take and must refuse; compiled, never run. */
import { connectSignals, type Signal } from "../javascript/signals.js";
import { useSignals } from "../react/useSignals.js";

const url = "ws://127.0.0.1:8765/ws/signals";
const shown = ({ symbol, price, values }: Signal): string => `${symbol} ${price.toFixed(2)} ${values["RSI(14)"] ?? "-"}`;
const subscription = connectSignals({
  url,
  actions: ["BUY"],
  storage: localStorage,
  WebSocket,
  onSignal: (signal) => console.log(shown(signal)),
  onStatus: (status) => console.log(status.state === "waiting" ? status.retryInMs : status.state),
});
subscription.place?.epoch.length;
// @ts-expect-error: there is no such action
connectSignals({ url, actions: ["HOLD"] });
// @ts-expect-error: the url is needed
connectSignals({});
// @ts-expect-error: the place is told, not set
subscription.place = undefined;

const { signals, status, missed } = useSignals({ url, limit: 50 });
signals.map(shown).join(missed ?? status.state);
// @ts-expect-error: the hook hands signals over by itself
useSignals({ url, onSignal: shown });
