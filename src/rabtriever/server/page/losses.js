// View 2: the test queries by the difference of two systems, and the two rankings of one of them.

import { el, svg, chip, count, label, note, number, put, signed, announce } from "./dom.js";
import { rankings, view } from "./source.js";
import { address, change } from "./route.js";
import { canvas, figure, room, scale } from "./chart.js";
import { columns } from "./columns.js";

const ROWS = 60; // of the list; the picture has all

/** Draws the view. */
export async function show(root, parameters) {
  const found = await view("losses");
  if (found.missing) return put(root, note(found.missing));
  const [a, b] = pair(found, parameters);
  const filters = filtersOf(found, a, b);
  const chosen = (parameters.filter ?? "").split(",").filter((name) => name in filters);
  const all = found.queries.map((query) => ({ ...query, difference: query.values[a] - query.values[b] }));
  const rows = all.filter((query) => chosen.every((name) => filters[name].keeps(query)));
  const sorted = [...rows].sort((one, other) => one.difference - other.difference || one.id.localeCompare(other.id));
  if (parameters.sort === "wins") sorted.reverse();
  const compared = el("div", { id: "compared" });
  put(
    root,
    controls(found, a, b, filters, chosen, all, parameters),
    sorted.length ? summary(sorted, all.length, a, b) : note("No query passes all filters."),
    sorted.length ? strip(sorted, a, b, parameters.query) : "",
    el("div", { class: "split" }, list(sorted, a, b, parameters), compared),
  );
  await compare(compared, parameters.query, a, b, parameters.hit);
}

function pair(found, parameters) {
  const known = (name, fallback) => (found.systems.includes(name) ? name : fallback);
  const a = known(parameters.a, known("student", found.systems[0]));
  return [a, known(parameters.b, found.systems.find((name) => name === "biencoder" && name !== a) ?? found.systems.find((name) => name !== a))];
}

function filtersOf(found, a, b) {
  return {
    first: {
      name: `First place lost: ${label(b)} has a relevant document there, ${label(a)} has not`,
      short: "First place lost",
      keeps: (query) => query.first[b] > 0 && !(query.first[a] > 0),
    },
    unseen: {
      name: "A relevant document is relevant for no training query",
      short: "Unseen document",
      keeps: (query) => query.unseen > 0,
    },
    long: {
      name: `Queries of ${found.long_from} words or more, the longest quarter`,
      short: `Long query (${found.long_from}+ words)`,
      keeps: (query) => query.words >= found.long_from,
    },
  };
}

function controls(found, a, b, filters, chosen, all, parameters) {
  const select = (name, text, value, other) =>
    el(
      "label",
      {},
      text,
      el(
        "select",
        { "data-key": `select-${name}`, onchange: (event) => change({ [name]: event.target.value, query: "" }) },
        found.systems.map((system) => el("option", { value: system, selected: system === value, disabled: system === other }, label(system))),
      ),
    );
  const toggle = (name) => {
    const next = chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name];
    change({ filter: next.join(","), query: "" });
  };
  return el(
    "div",
    { class: "controls" },
    select("a", "Compare", a, b),
    select("b", "with", b, a),
    el("a", { class: "swap", href: address("losses", { ...parameters, a: b, b: a }) }, "Swap"),
    el(
      "div",
      { class: "filters", role: "group", "aria-label": "Filters" },
      Object.entries(filters).map(([name, filter]) =>
        el(
          "button",
          { type: "button", class: "toggle", title: filter.name, "aria-pressed": String(chosen.includes(name)), "data-key": `filter-${name}`, onclick: () => toggle(name) },
          `${filter.short} `,
          el("span", { class: "count" }, String(all.filter(filter.keeps).length)),
        ),
      ),
    ),
  );
}

function summary(rows, total, a, b) {
  const wins = rows.filter((query) => query.difference > 0).length;
  const lost = rows.filter((query) => query.difference < 0).length;
  const mean = rows.reduce((sum, query) => sum + query.difference, 0) / rows.length;
  const shown = rows.length === total ? `all ${count(total, "test query", "test queries")}` : `${rows.length} of ${count(total, "test query", "test queries")}`;
  return el(
    "p",
    { class: "summary" },
    `On ${shown} ${label(a)} wins ${wins}, ties ${rows.length - wins - lost} and loses ${lost} against ${label(b)}: `,
    el("strong", {}, `${signed(100 * mean, 1)} points of nDCG@10`),
    " on average.",
  );
}

function strip(rows, a, b, selected) {
  const [width, height, left, right] = [room(1400), 120, 44, 6];
  const picture = canvas(width, height, `Difference of ${label(a)} and ${label(b)} for each query, sorted`);
  const y = scale([-1, 1], [height - 10, 10]);
  const each = Math.min((width - left - right) / rows.length, 24);
  for (const value of [-1, 0, 1]) {
    picture.append(svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: value ? "grid" : "axis" }));
    picture.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value ? signed(100 * value, 0) : "0"));
  }
  rows.forEach((query, place) => {
    const height_ = Math.max(Math.abs(y(query.difference) - y(0)), 1.5);
    const shape = {
      x: left + place * each,
      y: Math.min(y(query.difference), y(0)) - (query.difference === 0 ? 0.75 : 0),
      width: Math.max(each * 0.86, 0.6),
      height: height_,
      class: `bar ${query.difference > 0 ? "win" : query.difference < 0 ? "loss" : "tie"} ${query.id === selected ? "selected" : ""}`,
      onclick: () => change({ query: query.id, hit: "" }),
    };
    picture.append(svg("rect", shape, svg("title", {}, `${query.id} ${signed(100 * query.difference, 1)}: ${query.text}`)));
  });
  return figure(`nDCG@10 of ${label(a)} less that of ${label(b)}, one bar a query, in points`, picture);
}

function list(rows, a, b, parameters) {
  const sort = parameters.sort === "wins" ? "" : "wins";
  return el(
    "div",
    { class: "queries" },
    el(
      "div",
      { class: "list-head" },
      el("h3", {}, parameters.sort === "wins" ? "Largest wins first" : "Largest losses first"),
      el("a", { href: address("losses", { ...parameters, sort }), "data-key": "sort" }, sort ? "Wins first" : "Losses first"),
    ),
    el(
      "ol",
      { "data-scroll": "queries" },
      rows.slice(0, ROWS).map((query) =>
        el(
          "li",
          {},
          el(
            "a",
            {
              href: address("losses", { ...parameters, query: query.id, hit: "" }),
              "aria-current": query.id === parameters.query ? "true" : null,
              "data-key": `query-${query.id}`,
            },
            el("span", { class: `difference ${query.difference < 0 ? "loss" : query.difference > 0 ? "win" : ""}` }, signed(100 * query.difference, 1)),
            el("span", { class: "query-text" }, query.text),
            el("span", { class: "marks" }, query.unseen ? chip("unseen", "plain", "a relevant document that training never saw") : null),
          ),
        ),
      ),
    ),
    rows.length > ROWS ? el("p", { class: "hint" }, `The first ${ROWS} are listed; the picture has all.`) : null,
  );
}

async function compare(holder, queryId, a, b, hit) {
  if (!queryId) {
    put(holder, el("p", { class: "empty" }, "Choose a query to see both rankings."));
    return;
  }
  const found = await rankings(queryId);
  const columnsOf = [b, a].map((system) => ({
    system,
    hits: found.rankings[system],
    time: `nDCG@10 ${number(found.values[system], 2)}`,
    about: system === "student" ? "as evaluated in the last run" : undefined,
  }));
  const unranked = Object.entries(found.grades).filter(([id, grade]) => grade > 0 && ![a, b].some((system) => found.rankings[system].some(([one]) => one === id)));
  const shared = { documents: found.documents, grades: found.grades, selected: hit ?? null, onselect: (id) => change({ hit: id === hit ? "" : id }, true) };
  const open = hit ? found.documents[hit] : null;
  put(
    holder,
    el("h3", {}, found.query),
    el("p", { class: "meta" }, chip(found.id), " ", el("a", { href: address("search", { q: found.query }) }, "Search for it"), " · ", el("a", { href: address("label", { q: found.query }) }, "Label its documents")),
    columns(columnsOf, shared),
    open ? el("p", { class: "text boxed" }, el("strong", {}, open.title ? `${open.title}. ` : ""), open.text) : null,
    unranked.length
      ? el("p", { class: "foot" }, "Relevant, and in neither list: ", unranked.map(([id]) => found.documents[id]?.title || id).join("; "))
      : null,
  );
  announce(`Both rankings of ${found.id}`);
}
