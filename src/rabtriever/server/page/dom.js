// Elements and numbers as the views write them. Texts become text nodes, never HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element; children are nodes or texts. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A number with so many decimals; a dash for none. */
export function number(value, decimals = 1) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const options = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return value.toLocaleString("en", options).replace("-", "−");
}

/** A number with its sign. */
export function signed(value, decimals = 1) {
  const text = number(value, decimals);
  return /[1-9]/.test(text) ? (value > 0 ? "+" : "") + text : text.replace("−", "");
}

/** A time of some milliseconds, in the unit that is easiest to read. */
export function duration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  if (milliseconds >= 60000) return `${number(milliseconds / 60000, 1)} min`;
  if (milliseconds >= 1000) return `${number(milliseconds / 1000, 2)} s`;
  if (milliseconds < 0.1) return `${number(1000 * milliseconds, 0)} µs`;
  return `${number(milliseconds, milliseconds < 10 ? 1 : 0)} ms`;
}

/** Puts nodes and texts in the place of what an element holds; null and "" are left out. */
export function put(holder, ...children) {
  holder.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
}

/** "1 query", "2 queries". */
export function count(value, one, many = `${one}s`) {
  return `${number(value, 0)} ${value === 1 ? one : many}`;
}

/** What a document is called in a list. */
export function nameOf(document, id) {
  return document?.title || document?.text?.slice(0, 80) || id;
}

export const LABELS = {
  bm25: "BM25",
  biencoder: "Bi-encoder",
  student: "Student",
  teacher: "Teacher",
};

/** A system's name; `_prior` is the system with what training queries tell about documents. */
export function label(system) {
  if (system.endsWith("_prior")) return `${label(system.slice(0, -"_prior".length))} + prior`;
  return LABELS[system] ?? system;
}

/** A short mark with a tone: accent, warn or plain. */
export function chip(text, tone = "plain", title = null) {
  return el("span", { class: `chip ${tone}`, title }, text);
}

/** A paragraph that says why something is not shown. */
export function note(text) {
  return el("p", { class: "note" }, text);
}

/** Says something to a screen reader. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}

/** A table whose first column names the rows; numbers stand on the right. */
export function table(caption, heads, rows) {
  const cell = (value, place) =>
    place === 0
      ? el("th", { scope: "row" }, value)
      : el("td", { class: typeof value === "string" && /^[−+–\d]/.test(value) ? "number" : null }, value);
  return el(
    "div",
    { class: "table", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))),
    ),
  );
}
