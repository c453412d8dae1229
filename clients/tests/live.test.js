/** The module against the real service: feed, bars, scan, history and server of a small simulated market. */
import { expect, test } from "vitest";
import WebSocket from "ws";
import { connectSignals } from "../javascript/signals.js";
import { collected, folder, run } from "./server.js";

test("a service that is killed and started again misses and doubles nothing", async () => {
  const place = folder();
  let service = await run(place.path);
  const { port } = new URL(service.url);
  const signals = collected();
  const { close } = connectSignals({ url: service.url, WebSocket, backoffMs: [50, 500], onSignal: signals.push });
  const epochs = (all) => new Set(all.map(({ epoch }) => epoch)).size;
  await signals.until((all) => all.length > 3);
  await service.kill();
  service = await run(place.path, { port });
  await signals.until((all) => epochs(all) === 2 && all.length > 10);
  close();
  await service.stop();
  place.remove();
  const seen = signals.items.map(({ id }) => id);
  expect(new Set(seen).size).toBe(seen.length);
  // Numbers count without gap in each epoch: from wherever it began in the first, from 1 in the second.
  for (const epoch of new Set(signals.items.map((signal) => signal.epoch))) {
    const numbers = signals.items.filter((signal) => signal.epoch === epoch).map(({ seq }) => seq);
    expect(numbers).toEqual(numbers.map((_, at) => numbers[0] + at));
  }
  expect(signals.items.find(({ epoch }) => epoch !== signals.items[0].epoch).seq).toBe(1);
});
