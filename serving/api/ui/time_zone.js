// In which zone the page shows times: that of the browser, or UTC. One choice for the whole page; it is remembered.

const KEY = "serving.zone";
const listeners = new Set();
let zone = remembered();

/** @returns {"local" | "utc"} */
export function currentZone() {
  return zone;
}

/** Shows times in the other zone from now on. */
export function toggleZone() {
  zone = zone === "utc" ? "local" : "utc";
  try {
    localStorage.setItem(KEY, zone);
  } catch {
    // a browser that keeps nothing: the choice lasts as long as the page
  }
  for (const listener of [...listeners]) listener(zone);
}

/**
 * Calls a listener whenever the zone changes.
 * @param {(zone: "local" | "utc") => void} listener
 * @returns {() => void} ends that
 */
export function onZoneChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function remembered() {
  try {
    return localStorage.getItem(KEY) === "utc" ? "utc" : "local";
  } catch {
    return "local";
  }
}
