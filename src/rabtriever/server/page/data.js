// View 4: the data of the last run.

import { el, count, note, number, put, table } from "./dom.js";
import { view } from "./source.js";
import { figure, histogram } from "./chart.js";

const SPLITS = ["train", "dev", "test"];

/** Draws the view. */
export async function show(root) {
  const found = await view("data");
  if (found.missing) return put(root, note(found.missing));
  const broken = found.expectations.filter((one) => !one.success).length;
  const test = found.splits.test;
  put(
    root,
    el(
      "div",
      { class: "tiles" },
      tile(number(found.documents, 0), "documents", `${number(found.never_relevant, 0)} are relevant for no training query`),
      tile(number(found.queries, 0), "queries", SPLITS.filter((name) => found.splits[name]).map((name) => `${found.splits[name].queries} ${name}`).join(", ")),
      tile(number(test.queries_with_unseen, 0), "test queries with an unseen document", `of ${test.queries}; no training query needs that document`),
      tile(broken ? number(broken, 0) : "met", broken ? "expectations broken" : "data contract", `${found.expectations.length} expectations`),
    ),
    splits(found),
    el(
      "div",
      { class: "charts wide" },
      figure(`A typical document has ${count(found.words.documents.median, "word")}, the longest ${found.words.documents.largest}`, histogram(found.words.documents, "Documents by their number of words", "words", true), el("p", { class: "legend" }, cut(found.truncation, "documents"))),
      figure(`A typical query has ${count(found.words.queries.median, "word")}, the longest ${found.words.queries.largest}`, histogram(found.words.queries, "Queries by their number of words", "words", true), el("p", { class: "legend" }, cut(found.truncation, "queries"))),
    ),
    el(
      "div",
      { class: "charts" },
      SPLITS.filter((name) => found.splits[name]).map((name) => {
        const positives = found.splits[name].positives_a_query;
        return figure(`A typical ${name} query has ${count(positives.median, "relevant document")}, at most ${positives.largest}`, histogram(positives, `${name} queries by their number of relevant documents`, "relevant documents"));
      }),
    ),
    contract(found),
  );
}

function tile(value, name, detail) {
  return el("div", { class: "tile" }, el("strong", {}, value), el("span", {}, name), el("small", {}, detail));
}

function cut(truncation, name) {
  if (truncation.missing) return truncation.missing;
  const { cut: some, of, limit } = truncation[name];
  const share = of ? (100 * some) / of : 0;
  return some ? `${number(share, 1)} % lose their middle: the models read ${limit} tokens (${of} were counted).` : `None is cut: the models read ${limit} tokens (${of} were counted).`;
}

function splits(found) {
  const names = SPLITS.filter((name) => found.splits[name]);
  const row = (title, value) => [title, ...names.map((name) => value(found.splits[name], name))];
  const grades = (split) => Object.entries(split.grades).map(([grade, times]) => `${times} of grade ${grade}`).join(", ");
  return table("Splits", ["", ...names], [
    row("queries", (split) => number(split.queries, 0)),
    row("judgements", (split) => number(split.judgements, 0)),
    row("judgements a query", (split) => number(split.judgements / Math.max(split.queries, 1), 2)),
    row("grades", grades),
    row("documents that are relevant", (split) => number(split.relevant_documents, 0)),
    row("of these, relevant for no training query", (split) => number(split.unseen_documents, 0)),
    row("queries with such a document", (split) => number(split.queries_with_unseen, 0)),
  ]);
}

function contract(found) {
  const rows = found.expectations.map((one) => [one.expectation, one.success ? "met" : `broken by ${one.unexpected ?? "some"}`, number(one.rows, 0)]);
  return el(
    "section",
    {},
    table("What the data contract found", ["expectation", "outcome", "rows"], rows),
    found.notices.length ? el("ul", { class: "notices" }, found.notices.map((text) => el("li", {}, text))) : null,
    found.dev_cut_from_train ? el("p", { class: "hint" }, "The dev queries were cut from the training queries.") : null,
    el("p", { class: "hint" }, `Data ${found.source}, hash ${found.hash}.`),
  );
}
