// The frame: header, tabs, keys, and which view is shown for an address.

import { el, chip, count, note } from "./dom.js";
import { Refused, forget, forgetAll, hasToken, isFile, madeAt, useToken, view } from "./source.js";
import { address, current, go } from "./route.js";
import { show as search } from "./search.js";
import { show as losses } from "./losses.js";
import { show as versions } from "./versions.js";
import { show as data } from "./data.js";
import { show as cost } from "./cost.js";
import { show as label } from "./label.js";

const VIEWS = {
  search: ["Search", search],
  losses: ["Wins and losses", losses],
  versions: ["Versions", versions],
  data: ["Data", data],
  cost: ["Cost and quality", cost],
  label: ["Label", label],
};
const root = document.getElementById("view");
const PATIENCE = 10000; // milliseconds for which a look at what is in service is new
let turn = 0;
let asked = 0;
let shown = null;

const names = Object.keys(VIEWS);
const tabs = names.map((name) =>
  el(
    "a",
    { role: "tab", id: `tab-${name}`, href: address(name), "aria-controls": "view", onkeydown: (event) => step(event, name) },
    VIEWS[name][0],
  ),
);
document.getElementById("tabs").append(...tabs);

function select(active) {
  tabs.forEach((tab, place) => {
    tab.setAttribute("aria-selected", String(names[place] === active));
    tab.tabIndex = names[place] === active ? 0 : -1;
  });
  root.setAttribute("aria-labelledby", `tab-${active}`);
}

function step(event, name) {
  const steps = { ArrowRight: 1, ArrowLeft: -1 };
  const place = names.indexOf(name);
  const target =
    event.key in steps
      ? names[(place + steps[event.key] + names.length) % names.length]
      : { Home: names[0], End: names.at(-1) }[event.key];
  if (!target) return;
  event.preventDefault();
  document.getElementById(`tab-${target}`).focus();
  go(target);
}

/** Shows the view of the present address, with focus and scrolling kept where the same elements are there again. */
async function render() {
  turn += 1;
  const mine = turn;
  const { name, parameters } = current();
  if (!(name in VIEWS)) return go("search", {}, true);
  const focused = document.activeElement?.dataset?.key;
  const scrolled = new Map([...document.querySelectorAll("[data-scroll]")].map((one) => [one.dataset.scroll, one.scrollTop]));
  select(name);
  document.title = `${VIEWS[name][0]} · rabtriever`;
  const page = el("div", { class: `view ${name}` });
  try {
    await header();
    page.append(el("p", { class: "note" }, "Reading …"));
    if (!root.firstChild || !root.firstChild.classList?.contains(name)) root.replaceChildren(page);
    const next = el("div", { class: `view ${name}` });
    if (name === "search") root.replaceChildren(next);
    await VIEWS[name][1](next, parameters);
    if (mine !== turn) return;
    if (root.firstChild !== next) root.replaceChildren(next);
  } catch (error) {
    if (mine !== turn) return;
    root.replaceChildren(el("div", { class: "view" }, note(error.message), error instanceof Refused && error.status === 401 ? tokenForm() : ""));
    if (!(error instanceof Refused)) throw error;
  }
  if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  for (const one of document.querySelectorAll("[data-scroll]")) one.scrollTop = scrolled.get(one.dataset.scroll) ?? 0;
}

/** Asks again what is in service, now and then; of a new run or version nothing old is shown. */
async function latest() {
  if (isFile) return view("overview");
  if (Date.now() - asked > PATIENCE) forget("overview");
  const found = await view("overview");
  const identity = JSON.stringify([found.retriever, found.service.model, found.service.version]);
  if (shown !== null && identity !== shown) forgetAll();
  if (identity !== shown || Date.now() - asked > PATIENCE) asked = Date.now();
  shown = identity;
  return found;
}

async function header() {
  const found = await latest();
  document.getElementById("dataset").textContent = found.dataset ?? "";
  const service = document.getElementById("service");
  if (isFile) {
    service.replaceChildren(chip(`${found.queries} test queries`), chip(`written ${madeAt.slice(0, 10)}`));
    return;
  }
  const live = found.service;
  const recorded = ["losses", "data", "cost"].includes(current().name);
  document.getElementById("notice").replaceChildren(...(found.note && recorded ? [note(found.note)] : []));
  service.replaceChildren(
    live.version ? chip(`version ${live.version} in service`, "accent") : chip(live.model ? `folder ${live.model}` : "nothing in service", live.model ? "accent" : "warn"),
    chip(count(live.documents, "document")),
    found.note ? chip("reports of another run", "warn", found.note) : "",
    live.failure ? chip("a version did not load", "warn", live.failure.reason) : "",
    found.tokens ? el("button", { type: "button", class: "token", "data-key": "token", onclick: askToken }, hasToken() ? `Token: ${found.caller.name}` : "Token") : "",
  );
}

function tokenForm() {
  const field = el("input", { id: "token", type: "password", autocomplete: "off" });
  const submit = (event) => {
    event.preventDefault();
    useToken(field.value.trim());
    render();
  };
  return el(
    "form",
    { class: "token-form", onsubmit: submit },
    el("label", { for: "token" }, "Token of this server; it is kept until the tab closes"),
    el("div", { class: "row" }, field, el("button", { class: "main", type: "submit" }, "Use it")),
  );
}

function askToken() {
  const form = tokenForm();
  const dialog = el("dialog", { "aria-label": "Token", onclose: () => dialog.remove() }, form, el("div", { class: "actions" }, el("button", { type: "button", onclick: () => dialog.close() }, "Cancel")));
  form.addEventListener("submit", () => dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName) || document.querySelector("dialog[open]");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const field = document.getElementById("query");
  if (field) field.focus();
  else {
    go("search");
    setTimeout(() => document.getElementById("query")?.focus(), 100);
  }
});
let resized = null;
let width = document.documentElement.clientWidth;
window.addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => {
    if (document.documentElement.clientWidth === width || !root.querySelector(".chart")) return;
    width = document.documentElement.clientWidth;
    render();
  }, 200);
});
window.addEventListener("hashchange", render);
render();
