// Rankings side by side, with a line from each document's place in one column to its place in the next.

import { el, svg, label, nameOf, chip, number } from "./dom.js";

const ABOUT = {
  bm25: "words in common",
  biencoder: "vectors, each text alone",
  student: "the retriever in service",
  teacher: "reads query and document together",
};

/** A grade as a mark; none for a document that nobody judged. */
export function gradeChip(grade) {
  if (grade === undefined || grade === null) return null;
  return grade > 0
    ? chip(`grade ${grade}`, "accent", "judged relevant")
    : chip("not relevant", "plain", "judged not relevant");
}

function row(hit, place, { documents, grades, selected, onselect, system }) {
  const [id, score] = hit;
  const document = documents[id];
  const grade = grades?.[id];
  return el(
    "li",
    { "data-document": id, class: grade > 0 ? "relevant" : null },
    el(
      "button",
      {
        type: "button",
        class: "hit",
        "aria-pressed": selected === id ? "true" : "false",
        "data-key": `hit-${system}-${id}`,
        title: `score ${number(score, 3)}`,
        onclick: () => onselect(id),
      },
      el("span", { class: "rank" }, String(place + 1)),
      el(
        "span",
        { class: "words" },
        el("span", { class: "title" }, nameOf(document, id)),
        el("span", { class: "snippet" }, document?.title ? document.text : ""),
      ),
      gradeChip(grade),
    ),
  );
}

function column(one, shared) {
  const body = one.hits
    ? one.hits.length
      ? el("ol", {}, one.hits.map((hit, place) => row(hit, place, { ...shared, system: one.system })))
      : el("p", { class: "note" }, "No document shares a word with the query.")
    : el("p", { class: "note" }, one.note ?? "Waiting …");
  const found = one.hits?.filter(([id]) => shared.grades?.[id] > 0).length ?? 0;
  const relevant = Object.values(shared.grades ?? {}).filter((grade) => grade > 0).length;
  return el(
    "section",
    { class: `column ${one.system}`, "aria-label": `Ranking of ${label(one.system)}`, "aria-busy": one.busy ? "true" : null },
    el(
      "header",
      {},
      el("h3", {}, label(one.system), one.time ? el("span", { class: "time" }, one.time) : null),
      el("p", { class: "about" }, one.about ?? ABOUT[one.system] ?? ""),
    ),
    body,
    one.hits && relevant ? el("p", { class: "foot" }, `${found} of ${relevant} relevant here`, one.foot ?? "") : null,
  );
}

function draw(picture, list, grades, chosen) {
  const box = list.getBoundingClientRect();
  picture.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  picture.replaceChildren();
  const places = [...list.querySelectorAll(".column")].map(
    (one) => new Map([...one.querySelectorAll("li")].map((item) => [item.dataset.document, item.getBoundingClientRect()])),
  );
  for (let place = 0; place + 1 < places.length; place += 1) {
    for (const [id, from] of places[place]) {
      const to = places[place + 1].get(id);
      if (!to || to.left <= from.right) continue;
      const [x1, y1, x2, y2] = [from.right - box.left, from.top + from.height / 2 - box.top, to.left - box.left, to.top + to.height / 2 - box.top];
      const middle = (x1 + x2) / 2;
      const tone = id === chosen ? "chosen" : grades?.[id] > 0 ? "relevant" : "plain";
      picture.append(svg("path", { d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`, class: `join ${tone}` }));
    }
  }
}

/** Columns of [{system, hits: [[id, score]], time, note, busy}]; `shared` has documents, grades, selected, onselect. */
export function columns(list, shared) {
  const picture = svg("svg", { class: "joins", "aria-hidden": "true", preserveAspectRatio: "none" });
  const holder = el("div", { class: "columns" }, picture, list.map((one) => column(one, shared)));
  holder.style.setProperty("--columns", String(list.length));
  let chosen = shared.selected ?? null;
  const redraw = () => draw(picture, holder, shared.grades, chosen);
  const mark = (id) => {
    chosen = id ?? shared.selected ?? null;
    for (const item of holder.querySelectorAll("li")) item.classList.toggle("chosen", item.dataset.document === chosen);
    redraw();
  };
  holder.addEventListener("pointerover", (event) => mark(event.target.closest("li")?.dataset.document));
  holder.addEventListener("pointerleave", () => mark(null));
  holder.addEventListener("focusin", (event) => mark(event.target.closest("li")?.dataset.document));
  holder.addEventListener("focusout", () => mark(null));
  new ResizeObserver(() => mark(null)).observe(holder);
  return holder;
}
