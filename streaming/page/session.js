// Who the reader is to the server: the token, asked for once where one is needed, and kept until the tab is closed.

import { byId, remembered } from "./dom.js";

const KEY = "mystocks-scan token";
const storage = () => sessionStorage;

let asking = null;

export const token = () => remembered(storage, KEY);

/** Ask for a token; several who ask at once share the answer. */
export function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("ask");
    const why = byId("ask-why");
    why.hidden = token() === null;
    why.textContent = "The server did not take that token.";
    remembered(storage, KEY, null);
    byId("ask-form").addEventListener(
      "submit",
      () => {
        remembered(storage, KEY, byId("ask-token").value.trim());
        byId("ask-token").value = "";
        asking = null;
        resolve();
      },
      { once: true },
    );
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return asking;
}

/** What a path of this server answers as JSON. Throws an Error with the server's own words, or of the connection. */
export async function fetchJson(path, query = {}, signal = undefined) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const url = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  for (;;) {
    const used = token();
    const headers = used === null ? {} : { Authorization: `Bearer ${used}` };
    const answer = await fetch(url, { headers, signal, cache: "no-store" });
    if (answer.status === 401) {
      if (token() === used) await askForToken();
      continue;
    }
    if (!answer.ok) throw new Error((await answer.text()).trim() || `the server answers ${answer.status}`);
    return answer.json();
  }
}
