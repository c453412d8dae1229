// Who the reader is to the server: the token, asked for once where one is needed, and kept until the tab is closed.

import { byId, remembered } from "./dom.js";

const KEY = "mystocks-scan token";
const storage = () => sessionStorage;

let known = remembered(storage, KEY);
let asking = null;
let wrong = false;

/** What is shown to the server; null where it has asked for nothing. */
export const token = () => known;

function keep(value) {
  known = value;
  remembered(storage, KEY, value);
}

/** The server did not let in who showed the token `used` (null: none). Returns when it is worth trying again: without
 * that token, for none may be needed any more, or with one that the reader has given. */
export async function refused(used) {
  if (known !== used) return;
  if (used === null) {
    await (asking ??= ask());
  } else {
    wrong = true;
    keep(null);
  }
}

function ask() {
  byId("ask-why").hidden = !wrong;
  byId("ask").addEventListener("cancel", (event) => event.preventDefault());
  byId("ask").showModal();
  return new Promise((resolve) => {
    const given = () => {
      keep(byId("ask-token").value.trim());
      byId("ask-token").value = "";
      asking = null;
      resolve();
    };
    byId("ask-form").addEventListener("submit", given, { once: true });
  });
}

/** What a path of this server answers as JSON. Throws an Error with the server's own words, or of the connection. */
export async function fetchJson(path, query = {}, signal = undefined) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const url = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  for (;;) {
    const used = known;
    const headers = used === null ? {} : { Authorization: `Bearer ${used}` };
    const answer = await fetch(url, { headers, signal, cache: "no-store" });
    if (answer.status === 401) {
      await refused(used);
      continue;
    }
    if (!answer.ok) throw new Error((await answer.text()).trim() || `the server answers ${answer.status}`);
    return answer.json();
  }
}
