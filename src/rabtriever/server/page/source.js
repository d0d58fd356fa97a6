// Where the views get their data: from the server, or from what was written into the file.

const element = document.getElementById("recorded");
const recorded = element ? JSON.parse(element.textContent) : null;
const known = new Map();
const TOKEN = "rabtriever-token";

/** Whether this is the file that works without a server. */
export const isFile = recorded !== null;

/** When the file was written. */
export const madeAt = recorded?.made_at ?? null;

/** An answer of the server that is not what was asked for. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Keeps a token for this tab; an empty one forgets it. */
export function useToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
  known.clear();
}

/** Whether a token is kept. */
export function hasToken() {
  return !isFile && sessionStorage.getItem(TOKEN) !== null;
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused(0, "The server does not answer. Is it still running?");
  }
  const found = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, found?.error?.message ?? `The server answered ${answer.status}.`);
  return found;
}

/** What a view shows, asked for once. */
export async function view(name) {
  if (recorded) return recorded[name];
  if (!known.has(name)) {
    known.set(
      name,
      ask(`page/${name}`).catch((error) => {
        known.delete(name);
        throw error;
      }),
    );
  }
  return known.get(name);
}

/** Forgets everything, as after a new run. */
export function forgetAll() {
  known.clear();
}

/** Forgets what a view showed, so that it is asked for again. */
export function forget(name) {
  known.delete(name);
}

/** The recorded rankings of a test query: {id, query, rankings, grades, values, documents}. */
export async function rankings(queryId) {
  if (recorded) {
    const found = recorded.rankings.queries.find((query) => query.id === queryId);
    if (!found) throw new Refused(404, `The file has no query ${queryId}.`);
    return { ...found, documents: recorded.rankings.documents };
  }
  return view(`queries/${encodeURIComponent(queryId)}`);
}

/** The recorded test queries, of the file alone. */
export function recordedQueries() {
  return recorded.rankings.queries;
}

/** Sends something to the server. */
export function send(path, body) {
  const headers = { "Content-Type": "application/json" };
  return ask(`page/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
}

/** What the server says now, not what it said before. */
export function fresh(path) {
  return ask(`page/${path}`);
}
