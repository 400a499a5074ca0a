// Calls the server's public API. Every path is below the place where the server is mounted, one above this page.

/** An answer that is not 2xx, or no answer at all (status 0). Title and detail are plain text of the server. */
export class Problem extends Error {
  /**
   * @param {number} status the HTTP status; 0 when the server could not be reached
   * @param {string} title a few words
   * @param {string} detail a sentence that says what to do
   * @param {Record<string, any>} [body] the whole problem document
   */
  constructor(status, title, detail, body = {}) {
    super(detail ? `${title}: ${detail}` : title);
    this.name = "Problem";
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.body = body;
  }
}

/** @type {Set<(problem: Problem) => void>} */
const unauthorizedListeners = new Set();

/**
 * Calls a listener whenever an answer says 401: the session has ended, or a token is needed.
 * @param {(problem: Problem) => void} listener
 */
export function onUnauthorized(listener) {
  unauthorizedListeners.add(listener);
}

/**
 * Returns a path of the API; segments are encoded: `pathOf("models", name, "pin")`.
 * @param {...string} segments
 * @returns {string}
 */
export function pathOf(...segments) {
  return segments.map(encodeURIComponent).join("/");
}

/**
 * Returns the absolute address of a path of the API, for a curl call or a link.
 * @param {string} path without a leading slash
 * @returns {string}
 */
export function urlOf(path) {
  return new URL(`../${path}`, document.baseURI.split("#")[0]).href;
}

/**
 * GETs JSON.
 * @param {string} path without a leading slash, such as `models/iris?x=1`
 * @param {{signal?: AbortSignal, cache?: RequestCache}} [options]
 * @returns {Promise<any>} rejects with a Problem, or an AbortError
 */
export async function getJson(path, { signal, cache } = {}) {
  return read(await ask(path, { signal, cache, headers: { Accept: "application/json" } }));
}

/**
 * Sends a call that changes something. A Blob goes as it is, anything else as JSON; undefined sends no body.
 * @param {string} method
 * @param {string} path without a leading slash
 * @param {any} [body]
 * @param {{signal?: AbortSignal, headers?: Record<string, string>}} [options]
 * @returns {Promise<any>} the JSON of the answer, null where there is none; rejects with a Problem
 */
export async function send(method, path, body, { signal, headers = {} } = {}) {
  const sent = { Accept: "application/json", ...headers };
  let content = body;
  if (body !== undefined && !(body instanceof Blob)) {
    sent["Content-Type"] ??= "application/json";
    content = JSON.stringify(body);
  }
  return read(await ask(path, { method, signal, headers: sent, body: content }));
}

async function ask(path, options) {
  try {
    return await fetch(urlOf(path), { credentials: "same-origin", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "No answer", "The server cannot be reached.");
  }
}

async function read(response) {
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    if (response.ok) throw new Problem(response.status, "Not an answer of this server", "It is not JSON.");
  }
  if (response.ok) return body;
  const problem = new Problem(
    response.status,
    body?.title ?? `HTTP ${response.status}`,
    body?.detail ?? response.statusText,
    body ?? {},
  );
  if (response.status === 401) for (const listener of unauthorizedListeners) listener(problem);
  throw problem;
}
