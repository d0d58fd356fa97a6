// View 1: one query, the rankings of all systems beside each other, and the parts of a document's score.

import { el, announce, chip, count, duration, label, nameOf, note, number, put, signed } from "./dom.js";
import { isFile, rankings, recordedQueries, send, fresh, view } from "./source.js";
import { address, change, go } from "./route.js";
import { parts } from "./chart.js";
import { columns, gradeChip } from "./columns.js";
import { thumbs } from "./label.js";

const SHOWN = ["bm25", "biencoder", "student", "teacher"];
const PARTS = {
  relu_units: "What the teacher reads in the pair: units",
  product_units: "What the teacher reads in the pair: products",
  bi_encoder_score: "Nearness of the two texts, each read alone",
  document_bias: "The document, whatever is asked",
  query_bias: "The query, whatever the document",
};
const WAIT = 1500; // milliseconds between two looks at systems that are opening
const state = { query: null, turn: 0, found: {}, documents: {}, judged: null, parts: {} };

/** Draws the view. */
export async function show(root, parameters) {
  const overview = await view("overview");
  const query = parameters.q ?? "";
  put(root, form(query, overview), el("div", { id: "answer" }));
  if (!query) {
    root.lastChild.append(empty(overview));
    return;
  }
  if (state.query !== query) start(query, overview);
  paint(parameters, overview);
}

function form(query, overview) {
  const field = el("input", {
    id: "query",
    type: "search",
    name: "q",
    value: query,
    autocomplete: "off",
    "aria-describedby": "query-hint",
    placeholder: isFile ? "Find a recorded query" : "What is wanted, in your own words",
    "data-key": "query",
    oninput: isFile ? () => matches.replaceChildren(...examples(field.value, overview)) : null,
  });
  const matches = el("div", { class: "examples" }, examples(isFile ? query : "", overview));
  const submit = (event) => {
    event.preventDefault();
    const text = isFile ? (matching(field.value)[0]?.query ?? "") : field.value.trim();
    if (text) go("search", { q: text });
  };
  return el(
    "form",
    { class: "search", onsubmit: submit },
    el("label", { for: "query" }, isFile ? "Recorded queries" : "Query"),
    el("div", { class: "row" }, field, el("button", { class: "main", type: "submit" }, isFile ? "Show" : "Search")),
    el("p", { class: "hint", id: "query-hint" }, el("kbd", {}, "/"), " goes to this field. ", isFile ? "This file has the test queries of the last run." : ""),
    matches,
  );
}

function matching(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return recordedQueries().filter((query) => words.every((word) => query.query.toLowerCase().includes(word)));
}

function examples(text, overview) {
  const texts = isFile && text ? matching(text).map((query) => query.query) : (overview.examples ?? []);
  if (!texts.length) return [el("span", { class: "hint" }, isFile ? "No recorded query has these words." : "")];
  return [
    el("span", { class: "hint" }, "Examples"),
    ...texts.slice(0, 5).map((one) => el("a", { class: "example", href: address("search", { q: one }), title: one }, one)),
  ];
}

function empty(overview) {
  const closed = overview.gap_closed;
  return el(
    "div",
    { class: "empty" },
    el("h2", {}, "Ask a question and see how each system ranks the documents"),
    el("p", {}, "BM25 and the bi-encoder look at texts alone. The teacher reads every candidate with the query. The student has learned from the teacher, and reads nothing."),
    closed ? el("p", {}, `In the last evaluation the student closed ${number(closed.value, 0)} % of the gap between bi-encoder and teacher.`) : null,
  );
}

/** Asks all systems; the teacher reads what the others have found. */
function start(query, overview) {
  state.turn += 1;
  Object.assign(state, { query, found: {}, documents: {}, judged: null, parts: {} });
  if (isFile) recorded(query, overview);
  else ask(query, state.turn, overview);
}

async function recorded(query, overview) {
  const known = recordedQueries().find((one) => one.query === query);
  if (!known) {
    for (const name of SHOWN) state.found[name] = { note: "This query was not recorded; the file has test queries only." };
    return;
  }
  const found = await rankings(known.id);
  state.documents = found.documents;
  state.judged = { id: found.id, grades: found.grades };
  for (const name of SHOWN) {
    const row = overview.metrics[name];
    state.found[name] = found.rankings[name]
      ? { hits: found.rankings[name], time: `${duration(row?.ms_per_query)} on average`, foot: quality(found.values[name]) }
      : { note: "The last run has no ranking of this system." };
  }
  repaint();
}

function quality(value) {
  return value === null || value === undefined ? "" : `, nDCG@10 ${number(value, 2)}`;
}

async function ask(query, turn, overview) {
  const current = () => turn === state.turn;
  const one = async (system, body, about) => {
    state.found[system] = { note: "Ranking …", busy: true };
    try {
      const answer = await send("rank", { system, query, ...body });
      if (!current()) return;
      Object.assign(state.documents, answer.documents);
      state.found[system] = { hits: answer.hits, time: duration(answer.ms), about: about?.(answer), extra: answer };
    } catch (error) {
      if (current()) state.found[system] = { note: error.message };
    }
    if (current()) repaint();
  };
  send("judged", { query }).then((answer) => {
    if (current()) Object.assign(state, { judged: answer }) && repaint();
  }, () => {});
  const first = one("student", {}, (answer) => confidence(answer));
  const ready = await opened(["bm25", "biencoder"], current);
  await Promise.all([first, ...ready.map((system) => one(system, {}))]);
  if (!current() || !(await opened(["teacher"], current)).length) return;
  const candidates = [...new Set(["bm25", "biencoder", "student"].flatMap((name) => (state.found[name].hits ?? []).map(([id]) => id)))];
  state.found.teacher = { note: `Reading ${count(candidates.length, "document")} …`, busy: true };
  repaint();
  await one("teacher", { documents: candidates }, () => `read ${count(candidates.length, "candidate")}`);
  if (current()) announce(`All systems have answered: ${query}`);
}

function confidence(answer) {
  return answer.low_confidence ? "not sure that anything here helps" : "the retriever in service";
}

/** Waits until systems are open; gives those that are, and notes why others are not. */
async function opened(names, current) {
  for (;;) {
    let found;
    try {
      found = await fresh("systems");
    } catch (error) {
      for (const name of names) state.found[name] = { note: error.message };
      return [];
    }
    if (!current()) return [];
    for (const name of names) {
      const { state: how, reason } = found[name];
      if (how === "opening") state.found[name] = { note: "Opening the model …", busy: true };
      else if (how === "missing") state.found[name] = { note: `Not at hand: ${reason}` };
    }
    repaint();
    if (names.every((name) => found[name].state !== "opening")) return names.filter((name) => found[name].state === "ready");
    await new Promise((resolve) => setTimeout(resolve, WAIT));
  }
}

let last = null;

function repaint() {
  if (last && document.getElementById("answer")) paint(...last);
}

function paint(parameters, overview) {
  last = [parameters, overview];
  const holder = document.getElementById("answer");
  const focused = document.activeElement?.dataset?.key;
  const grades = state.judged?.grades;
  const list = SHOWN.map((system) => ({ system, ...(state.found[system] ?? { note: "Waiting …", busy: true }) }));
  const selected = parameters.hit ?? null;
  const onselect = (id) => change({ hit: id === selected ? "" : id });
  const shared = { documents: state.documents, grades, selected, onselect };
  const open = selected && state.documents[selected];
  put(
    holder,
    el("p", { class: "judged" }, verdict(state.judged)),
    el("div", { class: open ? "with-detail" : "" }, columns(list, shared), open ? detail(selected, list, grades) : null),
  );
  if (open && state.shown !== selected) holder.querySelector(".detail").scrollIntoView({ block: "nearest" });
  state.shown = selected;
  if (focused) holder.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function verdict(judged) {
  if (!judged) return "";
  const relevant = Object.values(judged.grades).filter((grade) => grade > 0).length;
  return judged.id
    ? [chip(judged.id, "plain"), ` This query is judged: ${count(relevant, "relevant document")}.`]
    : "Nobody has judged this query, so no grades are shown.";
}

function detail(id, list, grades) {
  const document = state.documents[id];
  const places = list.map(({ system, hits }) => {
    const place = hits?.findIndex(([one]) => one === id) ?? -1;
    return [label(system), place < 0 ? "not in the first 10" : `${place + 1}`, place < 0 ? "" : number(hits[place][1], 3)];
  });
  const holder = el("div", { class: "score" });
  explain(id, holder);
  return el(
    "section",
    { class: "detail", "aria-labelledby": "detail-title" },
    el("button", { class: "close", type: "button", "data-key": "close", "aria-label": "Close the document", onclick: () => change({ hit: "" }) }, "×"),
    el("h3", { id: "detail-title" }, nameOf(document, id)),
    el("p", { class: "meta" }, id, " ", gradeChip(grades?.[id])),
    el("p", { class: "text" }, document.text),
    el("dl", { class: "places" }, places.map(([name, place, score]) => el("div", {}, el("dt", {}, name), el("dd", {}, place), el("dd", {}, score)))),
    holder,
    isFile ? null : thumbs(state.query, id, state.found.student?.extra?.version),
  );
}

async function explain(id, holder) {
  if (isFile) {
    holder.append(note("The parts of a score need the server: rabtriever serve."));
    return;
  }
  try {
    state.parts[id] ??= send("explain", { query: state.query, document: id });
    const found = await state.parts[id];
    const rows = Object.entries(found.parts).map(([name, value]) => [PARTS[name] ?? name, value]);
    holder.append(
      el("h4", {}, `The student's score is ${number(found.total, 2)}, the sum of`),
      parts(rows, (value) => signed(value, 2)),
    );
  } catch (error) {
    holder.append(note(error.message));
  }
}
