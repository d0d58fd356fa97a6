// View 5: what a query costs and how good its answer is, and from which corpus size the student pays.

import { el, svg, duration, label, note, number, put, table } from "./dom.js";
import { view } from "./source.js";
import { address } from "./route.js";
import { axes, canvas, figure, powers, room, scale, tickTime, ticks } from "./chart.js";

const NAMES = { student: "student", biencoder: "bi-encoder", rerank: "bi-encoder, then the teacher", teacher: "teacher reads all" };

// Where a system's name stands beside its point: right, down, and which end of it.
const PLACES = { biencoder: [-10, 5, "end"], student: [6, 22, "start"], teacher: [4, -11, "middle"] };

/** Draws the view. */
export async function show(root, parameters) {
  const found = await view("cost");
  if (found.missing && !found.systems) return put(root, note(found.missing));
  put(
    root,
    found.missing ? note(found.missing) : "",
    el("div", { class: "charts wide" }, quality(found, parameters), found.sizes ? growth(found) : ""),
    figures(found),
  );
}

function quality(found, parameters) {
  const width = room(700, 2);
  const [height, box] = [380, [50, 40, width - 24, 322]];
  const zoomed = parameters.zoom === "1";
  const points = Object.entries(found.systems).filter(([name, one]) => one.ms !== null && (!zoomed || name !== "bm25"));
  const curve = found.curve ?? [];
  const all = [...points.map(([, one]) => one), ...curve];
  const values = all.map((one) => one.quality);
  const lowest = zoomed ? Math.floor(Math.min(...values) - 1) : 0;
  const highest = zoomed ? Math.ceil(Math.max(...values) + 1) : Math.min(100, Math.ceil((Math.max(...values) + 3) / 10) * 10);
  const times = all.map((one) => Math.max(one.ms, 0.001));
  const [from, to] = [10 ** Math.floor(Math.log10(Math.min(...times))), 10 ** Math.ceil(Math.log10(Math.max(...times)) + 0.05)];
  const x = scale([from, to], [box[0], box[2]], true);
  const y = scale([lowest, highest], [box[3], box[1]]);
  const picture = canvas(width, height, "Quality of each system against the time of a query");
  axes(picture, {
    box, x, y, xs: powers(from, to), ys: ticks(lowest, highest), xText: tickTime, yText: (value) => number(value, 0),
    xName: "time of a query (each step is ten times as long)", yName: `nDCG@10, per cent${lowest ? ` (from ${lowest})` : ""}`,
  });
  if (curve.length) {
    picture.append(svg("path", { d: `M${curve.map((one) => `${x(one.ms)} ${y(one.quality)}`).join("L")}`, class: "line rerank dashed" }));
    for (const one of curve) {
      picture.append(svg("circle", { cx: x(one.ms), cy: y(one.quality), r: 4, class: "dot rerank hollow" }, svg("title", {}, `first ${one.k} read: ${number(one.quality, 1)}, ${duration(one.ms)}`)));
      if (zoomed && [1, 5, 20, 100].includes(one.k)) picture.append(svg("text", { x: x(one.ms), y: y(one.quality) + 18, "text-anchor": "middle", class: "small" }, `k=${one.k}`));
    }
  }
  for (const [name, one] of points) {
    const [right, down, anchor] = PLACES[name] ?? [10, -8, "start"];
    picture.append(
      svg("circle", { cx: x(Math.max(one.ms, 0.001)), cy: y(one.quality), r: name === "student" ? 7 : 5.5, class: `dot ${name === "student" ? "student" : "other"}` }, svg("title", {}, `${label(name)}: ${number(one.quality, 1)}, ${duration(one.ms)}`)),
      svg("text", { x: x(Math.max(one.ms, 0.001)) + right, y: y(one.quality) + down, "text-anchor": anchor, class: `name ${name}` }, label(name)),
    );
  }
  return figure(
    qualityTitle(found),
    picture,
    el("p", { class: "legend" }, key("solid"), " measured in the last evaluation. ", key("hollow"), " bi-encoder whose first k documents the teacher orders: quality from the recorded rankings, time extrapolated from what a pair took in one pass over all queries. A live query takes longer for each pair."),
    el("p", { class: "legend" }, el("a", { href: address("cost", { zoom: zoomed ? "" : "1" }), "data-key": "zoom" }, zoomed ? "Show all systems from zero" : "Zoom to the trained systems")),
    found.others_cpu_percent >= 25 ? el("p", { class: "legend" }, `Other programs used ${number(found.others_cpu_percent, 0)} % of the processors meanwhile, so times are not to be relied on.`) : null,
  );
}

function key(kind) {
  return svg("svg", { viewBox: "0 0 12 12", class: "key", "aria-hidden": "true" }, svg("circle", { cx: 6, cy: 6, r: 4.5, class: `dot ${kind === "hollow" ? "rerank hollow" : "other"}` }));
}

function qualityTitle(found) {
  const student = found.systems.student;
  const match = found.sizes?.match;
  const equal = found.curve?.find((one) => one.k === match);
  const start = found.systems.biencoder;
  if (!student) return "Quality and time of each system";
  if (!found.curve) return `The student answers in ${duration(student.ms)} with nDCG@10 ${number(student.quality, 1)}`;
  if (match === 0) return `The bi-encoder alone is as good as the student here: ${number(start.quality, 1)} in ${duration(start.ms)} against ${number(student.quality, 1)} in ${duration(student.ms)}`;
  return equal
    ? `A bi-encoder is as good as the student (${number(student.quality, 1)}) when the teacher reads its first ${match}: ${duration(equal.ms)} against ${duration(student.ms)}`
    : `No reranked bi-encoder reaches the student's ${number(student.quality, 1)}; the student takes ${duration(student.ms)}`;
}

function growth(found) {
  const { sizes, ms, match, depth } = found.sizes;
  const width = room(700, 2);
  const [height, box] = [380, [58, 40, width - 140, 322]];
  const values = Object.values(ms).flat();
  const [from, to] = [10 ** Math.floor(Math.log10(Math.min(...values))), 10 ** Math.ceil(Math.log10(Math.max(...values)))];
  const x = scale([Math.min(sizes[0], found.documents), sizes.at(-1)], [box[0], box[2]], true);
  const y = scale([from, to], [box[3], box[1]], true);
  const picture = canvas(width, height, "Time of a query by the number of documents");
  axes(picture, {
    box, x, y, xs: powers(Math.min(sizes[0], found.documents), sizes.at(-1)), ys: powers(from, to),
    xText: (value) => sizeText(value), yText: tickTime, xName: "documents of the corpus", yName: "time of a query",
  });
  const at = x(found.documents);
  picture.append(
    svg("line", { x1: at, x2: at, y1: box[1], y2: box[3], class: "mark" }),
    svg("text", { x: at + 5, y: box[1] + 13, class: "small" }, "measured here"),
    svg("text", { x: box[2] - 6, y: box[3] - 8, "text-anchor": "end", class: "small" }, "extrapolated elsewhere"),
  );
  const ends = [];
  for (const [name, line] of Object.entries(ms)) {
    picture.append(svg("path", { d: `M${sizes.map((size, place) => `${x(size)} ${y(line[place])}`).join("L")}`, class: `line ${name} dashed` }));
    ends.push([name, y(line.at(-1))]);
  }
  for (const [name, place] of spread(ends)) {
    if (name === "rerank" && match === 0) continue; // it is the bi-encoder's own line
    const text = name === "rerank" ? [`bi-encoder, then`, `teacher reads ${depth}`] : [NAMES[name]];
    picture.append(svg("text", { x: box[2] + 10, y: place + 4, class: `name ${name}` }, text.map((words, row) => svg("tspan", { x: box[2] + 10, dy: row ? 14 : 0 }, words))));
  }
  for (const name of ["student", "biencoder", "teacher"]) {
    picture.append(svg("circle", { cx: x(found.documents), cy: y(found.systems[name].ms), r: 5, class: `dot ${name === "student" ? "student" : "other"}` }, svg("title", {}, `${label(name)}: measured ${duration(found.systems[name].ms)}`)));
  }
  return figure(
    growthTitle(found),
    picture,
    el("p", { class: "legend" }, key("solid"), ` measured, at ${number(found.documents, 0)} documents. Dashed: extrapolated. The teacher takes ${duration(found.pair_ms)} a pair; a scan reads 15 GB a second.`),
    match === null ? el("p", { class: "legend" }, `No depth reaches the student's quality, so the reranked line is drawn for the first ${depth}.`) : null,
  );
}

/** A number of documents at a tick: a power of ten. */
function sizeText(size) {
  if (size >= 1e6) return `${size / 1e6}M`;
  return size >= 1000 ? `${size / 1000}k` : `${size}`;
}

/** Names at the right end of lines, moved apart where they would overlap. */
function spread(ends) {
  const sorted = [...ends].sort((one, other) => one[1] - other[1]);
  for (let place = 1; place < sorted.length; place += 1) {
    const least = sorted[place - 1][1] + (sorted[place - 1][0] === "rerank" ? 32 : 18);
    sorted[place][1] = Math.max(sorted[place][1], least);
  }
  return sorted;
}

function growthTitle(found) {
  const { cheaper_than_teacher_from: from, cheaper_than_rerank: range, depth, match, sizes } = found.sizes;
  const where = from === sizes[0] ? "at every size" : `from about ${number(from, 0)} documents on`;
  const teacher = from === null ? "The student is never faster than a teacher that reads everything" : `The student is faster than a teacher that reads everything ${where}`;
  const equal = match === null ? `that reads ${depth}` : "of equal quality";
  if (match === 0) return `${teacher}. The bi-encoder alone is as good as the student${range === null ? ", and faster at every size (extrapolated)" : ""}`;
  if (range === null) return `${teacher}. A reranked bi-encoder ${equal} is faster at every size (extrapolated)`;
  const to = range[1] === sizes.at(-1) ? "on" : `to ${number(range[1], 0)}`;
  return `${teacher}. It is faster than a reranked bi-encoder ${equal} from ${number(range[0], 0)} documents ${to} (extrapolated)`;
}

function figures(found) {
  const measured = Object.entries(found.systems).map(([name, one]) => [label(name), number(one.quality, 1), duration(one.ms), one.p95 ? duration(one.p95) : "–", number(one.bytes, 0), "measured"]);
  const computed = (found.curve ?? []).map((one) => [`Bi-encoder, teacher reads ${one.k}`, number(one.quality, 1), duration(one.ms), "–", "–", "time extrapolated"]);
  return table("The same in figures", ["system", "nDCG@10", "time of a query", "95th percentile", "bytes a document", ""], [...measured, ...computed]);
}
