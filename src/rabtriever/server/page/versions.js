// View 3: the versions of the registry, what the gate decided on each, and the buttons that choose the one in service.

import { el, svg, announce, chip, count, note, number, put, signed, table } from "./dom.js";
import { forget, isFile, send, view } from "./source.js";
import { address } from "./route.js";
import { canvas, figure, room, scale, ticks } from "./chart.js";

/** Draws the view. */
export async function show(root, parameters) {
  const [found, overview] = await Promise.all([view("versions"), view("overview")]);
  if (found.missing) return put(root, note(found.missing));
  if (!found.versions.length) return put(root, note("No version is registered yet; run make run to train one."));
  const may = Boolean(overview.caller?.admin);
  put(
    root,
    el("p", { class: "lead" }, lead(found)),
    isFile ? "" : el("p", { class: "hint" }, may ? "Your token may promote and roll back." : "Promote and roll back need a token with the right admin."),
    found.versions.some((one) => one.decision?.interval) ? intervals(found.versions) : "",
    el("div", { class: "versions" }, found.versions.map((one) => card(one, parameters, may, found))),
  );
}

function lead(found) {
  const champion = found.versions.find((one) => one.version === found.champion);
  const first = found.champion ? `Version ${found.champion} is in service` : "No version is in service";
  const since = champion?.decision?.decided_at ? ` and was decided on ${day(champion.decision.decided_at)}` : "";
  return `${first}${since}. ${count(found.total, "version is", "versions are")} registered.`;
}

function day(text) {
  return text.slice(0, 16).replace("T", " ") + " UTC";
}

function intervals(versions) {
  const rows = versions.filter((one) => one.decision?.interval);
  const [width, left, right, step, top] = [room(900), 90, 20, 28, 16];
  const height = top + rows.length * step + 40;
  const ends = rows.flatMap((one) => [one.decision.interval.low, one.decision.interval.high, -(one.tolerance ?? 0)]);
  const [low, high] = [Math.min(0, ...ends) - 0.5, Math.max(0, ...ends) + 0.5];
  const x = scale([low, high], [left, width - right]);
  const picture = canvas(width, height, "Interval of each version's difference to the champion of its day");
  for (const value of ticks(low, high, 7)) {
    picture.append(svg("line", { x1: x(value), x2: x(value), y1: top - 8, y2: height - 36, class: value === 0 ? "axis" : "grid" }));
    picture.append(svg("text", { x: x(value), y: height - 20, "text-anchor": "middle" }, signed(value, Number.isInteger(value) ? 0 : 1)));
  }
  rows.forEach((one, place) => {
    const y = top + place * step + 8;
    const { low: from, high: to, mean } = one.decision.interval;
    const tone = one.decision.promoted ? "win" : "loss";
    const limit = x(-(one.tolerance ?? 0));
    picture.append(
      svg("text", { x: left - 14, y: y + 4, "text-anchor": "end" }, `version ${one.version}`),
      svg("line", { x1: limit, x2: limit, y1: y - 12, y2: y + 12, class: "tolerance" }),
      svg("line", { x1: x(from), x2: x(to), y1: y, y2: y, class: `interval ${tone}` }),
      tone === "win"
        ? svg("circle", { cx: x(mean), cy: y, r: 5, class: `dot ${tone}` }, svg("title", {}, signed(mean, 2)))
        : svg("rect", { x: x(mean) - 4.5, y: y - 4.5, width: 9, height: 9, class: `dot ${tone}` }, svg("title", {}, signed(mean, 2))),
    );
  });
  picture.append(svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle", class: "name" }, "points of nDCG@10 against the champion"));
  const legend = el(
    "p",
    { class: "legend" },
    "A version passes when its whole interval lies right of the dashed line, which is the tolerance. Round: promoted. Square: refused.",
  );
  return figure("Is a new version clearly not worse than the champion?", picture, legend);
}

function card(one, parameters, may, found) {
  const decision = one.decision;
  const open = parameters.version === one.version;
  const verdict = !decision ? chip("not decided") : decision.promoted ? chip("promoted", "accent") : chip("refused", "warn");
  return el(
    "article",
    { class: `card ${one.aliases.includes("champion") ? "champion" : ""}`, "aria-label": `Version ${one.version}` },
    el(
      "header",
      {},
      el("h3", {}, el("a", { href: address("versions", { version: open ? "" : one.version }), "aria-expanded": String(open), "data-key": `version-${one.version}` }, `Version ${one.version} ${open ? "▾" : "▸"}`)),
      one.aliases.map((name) => chip(name === "champion" ? "in service" : name, name === "champion" ? "accent" : "plain")),
      verdict,
      one.withdrawn ? chip("withdrawn", "warn", "somebody took it out of service") : null,
      el("span", { class: "figure" }, `nDCG@10 ${number(one.quality, 1)}`),
      el("span", { class: "when" }, decision?.decided_at ? day(decision.decided_at) : ""),
    ),
    el("p", { class: "reason" }, decision?.reason ?? "The gate has not decided on it."),
    el("p", { class: "changed" }, changed(one)),
    one.by_hand.map((record) => el("p", { class: "by-hand" }, chip("by hand"), ` ${record.action} by ${record.user}, ${day(record.at)}: ${record.reason}`)),
    open ? details(one) : null,
    may ? actions(one, found) : null,
  );
}

function changed(one) {
  const changes = one.changed;
  if (!changes) return "There is nothing earlier to compare it with.";
  const names = [
    changes.data ? "data" : null,
    changes.code ? "code" : null,
    changes.settings.length ? count(changes.settings.length, "setting") : null,
    changes.artefacts.length ? `models and files (${changes.artefacts.join(", ")})` : null,
  ].filter(Boolean);
  return [`Against version ${one.base}: `, names.length ? names.map((name) => [chip(name), " "]) : "nothing has changed."];
}

function details(one) {
  const settings = one.changed?.settings ?? [];
  const lost = one.regressed;
  return el(
    "div",
    { class: "details" },
    settings.length
      ? table("Settings that changed (each stage's last run before the version was registered)", ["setting", "before", "after"], settings.map((row) => [row.name, row.before ?? "–", row.after ?? "–"]))
      : null,
    lost?.rows
      ? [
          el("p", {}, `${count(lost.worse, "dev query is", "dev queries are")} worse than with version ${one.base}, ${lost.better} better, of ${lost.queries}.`),
          lost.rows.length
            ? table("Dev queries that lost most", ["query", "before", "after"], lost.rows.map((row) => [
                row.text ? el("a", { href: address("search", { q: row.text }) }, row.text) : row.id,
                number(row.before, 2),
                number(row.after, 2),
              ]))
            : null,
        ]
      : lost?.missing
        ? note(`Queries cannot be compared: ${lost.missing}.`)
        : null,
    table("Identity", ["what", "hash"], Object.entries(one.hashes).map(([name, hash]) => [name, el("code", {}, hash ? hash.slice(0, 12) : "–")])),
  );
}

function actions(one, found) {
  if (one.aliases.includes("champion")) return null;
  const promote = el("button", { type: "button", "data-key": `promote-${one.version}`, onclick: () => confirmed("promote", one) }, "Promote …");
  const back = found.champion
    ? el("button", { type: "button", "data-key": `rollback-${one.version}`, onclick: () => confirmed("rollback", one, found.champion) }, "Roll back to it …")
    : null;
  return el("div", { class: "actions" }, promote, back);
}

function confirmed(action, one, now) {
  const title = action === "promote" ? `Promote version ${one.version}?` : `Roll back to version ${one.version}?`;
  const meaning =
    action === "promote"
      ? "It becomes the champion whatever the gate has decided. Servers take it over at their next look."
      : `Version ${now} is marked as withdrawn: the gate will not promote it again. Servers take version ${one.version} over at their next look.`;
  const reason = el("textarea", { id: "reason", rows: "3", maxlength: "500", required: true });
  const problem = el("p", { class: "problem", role: "alert" });
  const yes = el("button", { class: "main", type: "submit" }, action === "promote" ? "Promote" : "Roll back");
  const submit = async (event) => {
    event.preventDefault();
    yes.disabled = true;
    problem.textContent = "Loading the version and asking it a question …";
    try {
      const target = action === "promote" ? { version: one.version } : { to: one.version };
      await send(action, { ...target, reason: reason.value });
      dialog.close();
      forget("versions");
      forget("overview");
      announce(`Version ${one.version} is champion now`);
      window.dispatchEvent(new HashChangeEvent("hashchange"));
    } catch (error) {
      problem.textContent = error.message;
      yes.disabled = false;
    }
  };
  const dialog = el(
    "dialog",
    { "aria-labelledby": "dialog-title", onclose: () => dialog.remove() },
    el(
      "form",
      { onsubmit: submit },
      el("h2", { id: "dialog-title" }, title),
      el("p", {}, meaning),
      el("label", { for: "reason" }, "Reason, recorded on the version"),
      reason,
      problem,
      el("div", { class: "actions" }, yes, el("button", { type: "button", onclick: () => dialog.close() }, "Cancel")),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}
