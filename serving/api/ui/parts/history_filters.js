// The filters of the history: fields of a form, parameters of the address, and a test for entries that arrive later.

import { h, setAttributes, setText, uniqueId } from "../dom.js";
import { formatTime, zoneName } from "../format.js";
import { currentZone, onZoneChange } from "../time_zone.js";
import { EVENTS } from "./history_sentence.js";
import { describeState } from "./state_mark.js";

const STATES = "DISCOVERED STAGING LOADING VALIDATING WARMING READY SHADOW CANARY ACTIVE DRAINING RETIRED REJECTED FAILED QUARANTINED".split(" ");
const KEYS = ["model", "version", "event", "actor", "state", "since", "until"];
const SETTLE_MS = 250;

/** @typedef {Record<string, string>} Filters what is not filtered is left out; times are ISO in UTC */

/**
 * Reads filters out of an address; what no filter is called is ignored.
 * @param {URLSearchParams} query
 * @returns {Filters}
 */
export function readFilters(query) {
  const given = KEYS.map((key) => [key, query.get(key)?.trim()]).filter(([, value]) => value);
  return Object.fromEntries(given.filter(([key, value]) => !["since", "until"].includes(key) || !Number.isNaN(+new Date(value))));
}

/**
 * Says whether an entry passes, as the server would.
 * @param {any} entry
 * @param {Filters} filters
 * @returns {boolean}
 */
export function passesFilters(entry, filters) {
  const fields = { model: entry.model, version: entry.version, event: entry.event, actor: entry.actor, state: entry.after };
  const at = new Date(entry.at);
  if (filters.since && at < new Date(filters.since)) return false;
  if (filters.until && at >= new Date(filters.until)) return false;
  return Object.entries(fields).every(([key, value]) => !filters[key] || filters[key] === value);
}

/**
 * Makes the form.
 * @param {object} options
 * @param {Filters} options.filters at the beginning
 * @param {() => Iterable<string>} options.listModels names to propose
 * @param {(filters: Filters) => void} options.onChange called when somebody has changed them
 * @returns {{element: HTMLElement, dispose: () => void}}
 */
export function makeHistoryFilters({ filters, listModels, onChange }) {
  const models = h("datalist", { id: uniqueId("models") });
  const zoneNote = h("span", { class: "muted" });
  const fields = {
    model: field("Model", h("input", { class: "input", list: models.id, autocomplete: "off", spellcheck: "false" })),
    version: field("Version", h("input", { class: "input", autocomplete: "off", spellcheck: "false" })),
    event: field("Event", choice([["", "All events"], ...EVENTS.map((event) => [event, event])])),
    state: field("State", choice([["", "All states"], ...STATES.map((state) => [state, describeState(state)[1]])])),
    actor: field("Actor", h("input", { class: "input", autocomplete: "off", spellcheck: "false" })),
    since: field("From", h("input", { class: "input", type: "datetime-local" })),
    until: field("Until", h("input", { class: "input", type: "datetime-local" })),
  };
  const clear = h("button", { type: "button", class: "button small" }, "Clear filters");
  const element = h(
    "form",
    { class: "history-filters", role: "search", novalidate: true, "aria-label": "Filter the history" },
    Object.values(fields).map((one) => one.element),
    models,
    h("div", { class: "filter-end" }, clear, zoneNote),
  );
  let settling = 0;

  function read() {
    const given = Object.entries(fields).map(([key, { input }]) => [key, isTime(key) ? toIso(input.value) : input.value.trim()]);
    return Object.fromEntries(given.filter(([, value]) => value));
  }
  function write(values) {
    for (const [key, { input }] of Object.entries(fields)) input.value = isTime(key) ? toField(values[key]) : (values[key] ?? "");
    showRest();
  }
  function showRest() {
    clear.hidden = Object.keys(read()).length === 0;
    setText(zoneNote, `Times are in ${zoneName(currentZone())}.`);
  }
  function changed() {
    clearTimeout(settling);
    showRest();
    onChange(read());
  }

  element.addEventListener("submit", (event) => {
    event.preventDefault();
    changed();
  });
  element.addEventListener("input", () => {
    clearTimeout(settling);
    settling = setTimeout(changed, SETTLE_MS);
  });
  fields.model.input.addEventListener("focus", () => {
    models.replaceChildren(...[...listModels()].map((name) => h("option", { value: name })));
  });
  clear.addEventListener("click", () => {
    write({});
    changed();
    fields.model.input.focus();
  });
  let zone = currentZone();
  const endZone = onZoneChange((next) => {
    const values = readIn(zone);
    zone = next;
    write(values);
  });
  /** The filters as the fields meant them before the zone changed. */
  function readIn(before) {
    const values = read();
    for (const key of ["since", "until"]) if (values[key]) values[key] = toIso(fields[key].input.value, before);
    return values;
  }
  write(filters);
  return {
    element,
    dispose() {
      clearTimeout(settling);
      endZone();
    },
  };
}

function field(title, input) {
  const id = uniqueId("filter");
  setAttributes(input, { id, name: title.toLowerCase() });
  return { input, element: h("div", { class: "field" }, h("label", { class: "field-label", for: id }, title), input) };
}

function choice(options) {
  return h("select", { class: "input" }, options.map(([value, text]) => h("option", { value }, text)));
}

function isTime(key) {
  return key === "since" || key === "until";
}

function toField(iso) {
  return iso ? formatTime(iso, currentZone()).replace(" ", "T").replace(/:00$/, "") : "";
}

function toIso(text, zone = currentZone()) {
  if (!text) return "";
  const time = new Date(zone === "utc" ? `${text}Z` : text);
  return Number.isNaN(+time) ? "" : time.toISOString();
}
