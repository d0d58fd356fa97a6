// View 6: judgements that people give. They are kept in a file; nothing is trained on them without being asked.

import { el, announce, chip, count, note, number, put } from "./dom.js";
import { forget, fresh, isFile, send } from "./source.js";
import { go } from "./route.js";

const NAME = "rabtriever-user";
const GRADES = [
  [1, "Helps"],
  [0, "Does not help"],
];

/** Two buttons that keep a judgement of a document. */
export function thumbs(query, id, version, given = null) {
  const said = el("span", { class: "said", role: "status" }, given === null ? "" : "kept");
  const buttons = GRADES.map(([grade, words]) =>
    el(
      "button",
      {
        type: "button",
        class: "thumb",
        "aria-pressed": String(given === grade),
        "data-key": `thumb-${id}-${grade}`,
        onclick: () => keep(grade),
      },
      words,
    ),
  );
  const keep = async (grade) => {
    said.textContent = "…";
    try {
      await send("labels", { query, document: id, grade, user: localStorage.getItem(NAME) ?? "", version: version ?? null });
      buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(GRADES[place][0] === grade)));
      said.textContent = "kept";
      forget("labels");
      announce(`Kept: ${id} ${grade ? "helps" : "does not help"}`);
    } catch (error) {
      said.textContent = error.message;
    }
  };
  return el("div", { class: "thumbs" }, buttons, said);
}

/** Draws the view. */
export async function show(root, parameters) {
  if (isFile) return put(root, note("Labels need the server: rabtriever serve keeps them in a file of the project."));
  const found = await fresh("labels");
  const query = parameters.q ?? "";
  const answer = el("div", {});
  put(
    root,
    el("p", { class: "lead" }, `Say which documents help. Each answer is one line of ${found.path}; nothing is trained on it until you take it into your data.`),
    found.writable ? "" : note("Labels need a token with the right admin."),
    form(query),
    answer,
    kept(found),
  );
  if (query) await hits(answer, query, found);
}

function form(query) {
  const field = el("input", { id: "query", type: "search", value: query, autocomplete: "off", "data-key": "query", placeholder: "A query to judge documents for" });
  const user = el("input", {
    id: "user",
    value: localStorage.getItem(NAME) ?? "",
    maxlength: "80",
    autocomplete: "off",
    "data-key": "user",
    onchange: (event) => localStorage.setItem(NAME, event.target.value),
  });
  const submit = (event) => {
    event.preventDefault();
    if (field.value.trim()) go("label", { q: field.value.trim() });
  };
  return el(
    "form",
    { class: "search", onsubmit: submit },
    el("label", { for: "query" }, "Query"),
    el("div", { class: "row" }, field, el("button", { class: "main", type: "submit" }, "Search")),
    el("div", { class: "row name" }, el("label", { for: "user" }, "Your name"), user),
  );
}

async function hits(holder, query, found) {
  try {
    const answer = await send("rank", { system: "student", query });
    const mine = new Map(found.labels.filter((one) => same(one.query, query)).reverse().map((one) => [one.doc_id, one.grade]));
    put(
    holder,
      el(
        "ol",
        { class: "judge" },
        answer.hits.map(([id]) =>
          el(
            "li",
            {},
            el("div", {}, el("strong", {}, answer.documents[id].title || id), el("p", {}, answer.documents[id].text)),
            thumbs(query, id, answer.version, mine.get(id) ?? null),
          ),
        ),
      ),
    );
  } catch (error) {
    put(holder, note(error.message));
  }
}

function same(one, other) {
  return one.toLowerCase().split(/\s+/).join(" ") === other.toLowerCase().split(/\s+/).join(" ");
}

function kept(found) {
  if (!found.total) return el("p", { class: "empty" }, "No label is kept yet.");
  const users = Object.entries(found.users).map(([name, times]) => `${name} ${times}`).join(", ");
  return el(
    "section",
    {},
    el("h3", {}, `${count(found.total, "label")} kept`),
    el("p", { class: "hint" }, `${number(found.pairs, 0)} pairs of query and document, ${number(found.helps, 0)} of them with help. By ${users}.`),
    el(
      "ul",
      { class: "kept" },
      found.labels.slice(0, 30).map((one) =>
        el("li", {}, chip(one.grade ? "helps" : "does not help", one.grade ? "accent" : "plain"), ` ${one.doc_id} for “${one.query}” `, el("span", { class: "hint" }, `${one.user}, ${one.time.slice(0, 16).replace("T", " ")} UTC, version ${one.version || "–"}`)),
      ),
    ),
  );
}
