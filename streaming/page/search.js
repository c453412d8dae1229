// The search box: stocks by code or Chinese name, as a combobox that the keyboard can use.

import { byId, element } from "./dom.js";
import { fetchJson } from "./session.js";

const PAUSE_MS = 150;

/** Calls `onChosen(symbol)` with the stock that was picked. */
export function search(onChosen) {
  const box = byId("search");
  const list = byId("found");
  let active = -1;
  let timer = 0;
  let asked = new AbortController();

  function close() {
    clearTimeout(timer);
    asked.abort();
    list.hidden = true;
    active = -1;
    box.setAttribute("aria-expanded", "false");
    box.removeAttribute("aria-activedescendant");
  }

  function pick(option) {
    if (!option?.dataset.symbol) return;
    close();
    box.value = "";
    onChosen(option.dataset.symbol);
  }

  function activate(place) {
    const options = [...list.children];
    active = Math.max(0, Math.min(place, options.length - 1));
    options.forEach((option, number) => option.setAttribute("aria-selected", number === active));
    options[active]?.scrollIntoView({ block: "nearest" });
    if (options[active]) box.setAttribute("aria-activedescendant", options[active].id);
  }

  async function look() {
    const text = box.value.trim();
    if (!text) return close();
    asked.abort();
    asked = new AbortController();
    let found;
    try {
      found = (await fetchJson("/api/symbols", { q: text }, asked.signal)).symbols;
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      list.replaceChildren(element("li", { class: "empty", text: error.message }));
      list.hidden = false;
      return undefined;
    }
    const options = found.map(({ symbol, name }, number) =>
      element(
        "li",
        { role: "option", id: `found-${number}`, "data-symbol": symbol, "aria-selected": "false" },
        element("b", { text: name ?? symbol }),
        element("small", { text: name ? symbol : "" }),
      ),
    );
    list.replaceChildren(
      ...(options.length ? options : [element("li", { class: "empty", text: "no such stock here" })]),
    );
    list.hidden = false;
    box.setAttribute("aria-expanded", "true");
    if (options.length) activate(0);
    return undefined;
  }

  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, PAUSE_MS);
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && !list.hidden) {
      event.preventDefault();
      activate(active + step);
    }
    if (event.key === "Escape") close();
    if (event.key === "Enter") {
      event.preventDefault();
      if (list.hidden) look().then(() => pick(list.children[0]));
      else pick(list.children[active]);
    }
  });
  box.addEventListener("blur", () => setTimeout(close, 150));
  list.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    pick(event.target.closest("li"));
  });
  byId("chart-form").addEventListener("submit", (event) => event.preventDefault());
}
