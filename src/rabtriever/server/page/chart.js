// Charts as SVG. Each has a name for screen readers, and a table beside it that says the same.

import { el, number, svg } from "./dom.js";

/** A function from values to places; both ends are given, the values may be on a logarithmic scale. */
export function scale([low, high], [from, to], log = false) {
  const turn = log ? Math.log10 : (value) => value;
  const span = turn(high) - turn(low) || 1;
  return (value) => from + ((turn(value) - turn(low)) / span) * (to - from);
}

/** Round values within a range, about so many. */
export function ticks(low, high, wanted = 5) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(value);
  return found;
}

/** Powers of ten within a range. */
export function powers(low, high) {
  const found = [];
  for (let power = Math.ceil(Math.log10(low) - 1e-9); 10 ** power <= high * 1.0001; power += 1) found.push(10 ** power);
  return found;
}

/** A picture with a title that says its message, and what stands below it. */
export function figure(title, picture, ...below) {
  return el("figure", {}, el("figcaption", {}, title), picture, ...below);
}

/** The width of a picture that has the page for itself, or one of several columns. */
export function room(most, columns = 1) {
  const page = Math.min(document.documentElement.clientWidth, 1480) - 70;
  const inColumns = (page - 44 * (columns - 1)) / columns;
  return Math.round(Math.min(most, Math.max(300, inColumns < 460 ? page : inColumns)));
}

/** A time at a tick: a power of ten in milliseconds. */
export function tickTime(milliseconds) {
  if (milliseconds >= 1000) return `${number(milliseconds / 1000, 0)} s`;
  return milliseconds < 1 ? `${number(1000 * milliseconds, 0)} µs` : `${number(milliseconds, 0)} ms`;
}

/** An empty picture; its size is that of its own coordinates, it shrinks with the page. */
export function canvas(width, height, name) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", role: "img", "aria-label": name });
}

/** Axes with lines across: {x, y} are scales, {xs, ys} their ticks, {xText, yText} how a tick reads. */
export function axes(picture, { box, x, y, xs, ys, xText, yText, xName, yName }) {
  const [left, top, right, bottom] = box;
  const group = svg("g", { class: "axes" });
  for (const value of ys) {
    group.append(svg("line", { x1: left, x2: right, y1: y(value), y2: y(value), class: "grid" }));
    group.append(svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, yText(value)));
  }
  for (const value of xs) {
    group.append(svg("line", { x1: x(value), x2: x(value), y1: top, y2: bottom, class: "grid" }));
    group.append(svg("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" }, xText(value)));
  }
  group.append(svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }));
  group.append(svg("text", { x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle", class: "name" }, xName));
  group.append(svg("text", { x: left, y: top - 10, "text-anchor": "start", class: "name" }, yName));
  picture.append(group);
}

/** Bars of a histogram as the server counts it: {bars: [{low, high, count}], median}. */
export function histogram(found, name, unit, wide = false) {
  const [width, height, left, bottom] = [room(wide ? 600 : 400, wide ? 2 : 3), 150, 8, 122];
  const picture = canvas(width, height, name);
  const most = Math.max(1, ...found.bars.map((bar) => bar.count));
  const y = scale([0, most], [bottom, 14]);
  const each = (width - 2 * left) / Math.max(found.bars.length, 1);
  const step = Math.ceil(found.bars.length / 8);
  found.bars.forEach((bar, place) => {
    const at = left + place * each;
    const range = bar.low === bar.high ? `${bar.low}` : `${bar.low} to ${bar.high}`;
    const shape = { x: at + 1, y: y(bar.count), width: Math.max(each - 2, 1), height: bottom - y(bar.count), class: "bar" };
    picture.append(svg("rect", shape, svg("title", {}, `${range} ${unit}: ${bar.count}`)));
    if (found.bars.length <= 12 && bar.count) {
      picture.append(svg("text", { x: at + each / 2, y: y(bar.count) - 3, "text-anchor": "middle" }, bar.count));
    }
    if (place % step === 0) {
      picture.append(svg("text", { x: at + each / 2, y: bottom + 16, "text-anchor": "middle" }, bar.low));
    }
  });
  picture.append(svg("line", { x1: left, x2: width - left, y1: bottom, y2: bottom, class: "axis" }));
  return picture;
}

/** Horizontal bars from zero, one for each [name, value]. */
export function parts(rows, text) {
  const most = Math.max(1e-9, ...rows.map(([, value]) => Math.abs(value)));
  return el(
    "dl",
    { class: "parts" },
    rows.map(([name, value]) => {
      const share = `${(50 * Math.abs(value)) / most}%`;
      const bar = el("span", {
        class: value < 0 ? "part-bar below" : "part-bar",
        style: { width: share, ...(value < 0 ? { right: "50%" } : { left: "50%" }) },
      });
      const track = el("span", { class: "part-track", "aria-hidden": "true" }, bar);
      return el("div", {}, el("dt", {}, name), el("dd", {}, track, el("span", { class: "number" }, text(value))));
    }),
  );
}
