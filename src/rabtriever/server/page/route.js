// The address of what is shown: #/view?name=value. Every selection changes it, so that each can be sent to somebody.

/** The view and the parameters of the present address. */
export function current() {
  const [, name = "", query = ""] = /^#\/([a-z]*)\??(.*)$/.exec(location.hash) ?? [];
  return { name, parameters: Object.fromEntries(new URLSearchParams(query)) };
}

/** The address of a view; parameters without a value are left out. */
export function address(name, parameters = {}) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(kept).toString();
  return `#/${name}${query ? `?${query}` : ""}`;
}

/** Goes to an address; `replace` leaves no step in the browser's history. */
export function go(name, parameters = {}, replace = false) {
  const target = address(name, parameters);
  if (target === location.hash) window.dispatchEvent(new HashChangeEvent("hashchange"));
  else if (replace) {
    history.replaceState(null, "", target);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } else location.hash = target;
}

/** Changes some parameters of the present address. */
export function change(parameters, replace = false) {
  const { name, parameters: before } = current();
  go(name, { ...before, ...parameters }, replace);
}
