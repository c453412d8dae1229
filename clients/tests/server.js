/** The real server, as tests/server.py runs it, and the real service; each in a process of its own. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const root = resolve(fileURLToPath(import.meta.url), "../../..");
const python = process.env.PYTHON ?? "python3";

export function folder() {
  const path = mkdtempSync(join(tmpdir(), "clients-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

function started(args, env = {}) {
  const child = spawn(python, args, { cwd: root, env: { ...process.env, PYTHONPATH: root, ...env }, stdio: ["pipe", "pipe", "pipe"] });
  let errors = "";
  child.stderr.on("data", (text) => (errors += text));
  const ended = once(child, "exit");
  return { child, ended, errors: () => errors };
}

/** A server on `port` (0: any) with the history in a folder; `publish`, `drop`, `revoke`, `kill` (SIGKILL) and `stop` (goodbye). */
export async function serve(path, { port = 0, options = [] } = {}) {
  const { child, ended, errors } = started(["clients/tests/server.py", path, String(port), ...options]);
  const answers = createInterface(child.stdout)[Symbol.asyncIterator]();
  const answer = async () => {
    const { value, done } = await answers.next();
    if (done) throw new Error(`the server ended: ${errors()}`);
    return JSON.parse(value);
  };
  const ask = (command) => {
    child.stdin.write(`${JSON.stringify(command)}\n`);
    return answer();
  };
  const about = await answer();
  return {
    ...about,
    port: Number(new URL(about.url).port),
    publish: async (...signals) => (await ask({ publish: signals })).ids,
    revoke: () => ask({ revoke: true }),
    drop: () => ask({ drop: true }),
    clients: async () => (await ask({})).clients,
    kill: () => (child.kill("SIGKILL"), ended),
    stop: () => (child.stdin.end(), ended),
  };
}

/** `mystocks-scan run` on a small simulated market. */
export async function run(path, { port = 0 } = {}) {
  const command = ["-c", "import sys; from jobs.cli import main; main(sys.argv[1:])", "run"];
  const options = ["--symbols", "40", "--port", String(port), "--cluster", "inline", "--engine", "talib", "--json"];
  const { child, ended, errors } = started([...command, ...options], { MYSTOCKS_SCAN__STORE__SIM_PATH: path });
  let url;
  while (!url) {
    url = errors().match(/ws:\/\/\S+\/ws\/signals/)?.[0];
    if (!url) await Promise.race([once(child.stderr, "data"), ended.then(() => { throw new Error(errors()); })]);
  }
  return { url, stop: () => (child.kill("SIGINT"), ended), kill: () => (child.kill("SIGKILL"), ended) };
}

/** What is told by callbacks, to be awaited: `push` it, and `until` something holds of all of it. */
export function collected() {
  const items = [];
  let wake = () => {};
  return {
    items,
    push: (...more) => (items.push(...more), wake()),
    until: async (holds) => {
      while (!holds(items)) await new Promise((resolve) => (wake = resolve));
      return items;
    },
  };
}
