// Which view the address names. Everything is in the hash, so a link to a view with its filters can be shared.

/**
 * @typedef {object} Place
 * @property {string} view the first word of the path, "" for the start
 * @property {string | null} name what follows it, decoded
 * @property {URLSearchParams} query
 */

/**
 * Reads a hash such as `#/models/iris?tab=gates`.
 * @param {string} hash
 * @returns {Place}
 */
export function parseHash(hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split(/\?(.*)/s);
  const [view, ...rest] = path.split("/");
  return { view, name: rest.length && rest[0] !== "" ? decode(rest.join("/")) : null, query: new URLSearchParams(query) };
}

/**
 * Returns the hash of a place; empty values of the query are left out.
 * @param {string} view
 * @param {string | null} [name]
 * @param {Record<string, string | null | undefined>} [query]
 * @returns {string}
 */
export function hashOf(view, name = null, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const parameters = new URLSearchParams(given).toString();
  const path = name === null ? view : `${view}/${encodeURIComponent(name)}`;
  return `#/${path}${parameters ? `?${parameters}` : ""}`;
}

/**
 * Goes to a hash that `hashOf` returned; the view is shown anew.
 * @param {string} hash
 */
export function navigate(hash) {
  if (location.hash === hash) dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = hash;
}

/**
 * Changes the address without showing the view anew: for filters, which the view applies itself.
 * @param {string} hash
 */
export function replaceHash(hash) {
  history.replaceState(history.state, "", hash);
}

/**
 * Calls a listener now and whenever the place changes. Links within the page, such as the skip link, are no places.
 * @param {(place: Place) => void} listener
 */
export function watchPlaces(listener) {
  const tell = () => {
    if (location.hash === "" || location.hash.startsWith("#/")) listener(parseHash(location.hash));
  };
  addEventListener("hashchange", tell);
  tell();
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
