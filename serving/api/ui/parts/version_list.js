// The versions of a model, in the order of the server: state, since when, why; one of them is open with all details.

import { h, setText, uniqueId } from "../dom.js";
import { formatCount, formatDigest, formatRate } from "../format.js";
import { isInProgress } from "./gate_list.js";
import { stateMark } from "./state_mark.js";
import { timestamp } from "./timestamp.js";

/**
 * Return `{element, update, updateRates}`. `createDetails(version)` returns `{element, update(model, version)}` for the
 * version that is open; `onChoose(name | null)` says which one is.
 */
export function createVersionList({ createDetails, onChoose }) {
  const list = h("ol", { class: "versions" });
  const empty = h("p", { class: "muted", hidden: true }, "The store has no version of this model.");
  const rows = new Map();
  let model = null;
  let open = null;

  function choose(key, isByHand) {
    if (open === key) return;
    if (open !== null) rows.get(open)?.close();
    open = key;
    if (rows.has(key)) openRow(key);
    if (isByHand) onChoose(key);
  }

  function openRow(key) {
    const row = rows.get(key);
    row.open(createDetails(row.version.version));
    row.details.update(model, row.version);
  }

  function update(next) {
    model = next;
    empty.hidden = next.versions.length > 0;
    const keyed = keyVersions(next.versions);
    for (const [key, row] of rows) {
      if (keyed.has(key)) continue;
      row.element.remove();
      rows.delete(key);
    }
    [...keyed].forEach(([key, version], place) => {
      let row = rows.get(key);
      const isNew = row === undefined;
      if (isNew) {
        row = createRow(version.version, () => choose(open === key ? null : key, true));
        rows.set(key, row);
      }
      row.update(next, version);
      if (isNew && key === open) openRow(key);
      const there = list.children[place];
      if (there !== row.element) list.insertBefore(row.element, there ?? null);
    });
  }

  return {
    element: h("div", null, list, empty),
    update,
    choose: (name) => {
      choose(name, true);
      rows.get(name)?.focus();
    },
    restore: (name) => choose(name, false),
    updateRates: (ratesOf) => {
      for (const row of rows.values()) row.updateRate(ratesOf(row.version.version));
    },
  };
}

/**
 * Return the versions by the keys of their rows: their names. The server lists a name twice while an active version
 * answers whose files were replaced; the second one has another key.
 */
function keyVersions(versions) {
  const keyed = new Map();
  for (const version of versions) {
    const { version: name } = version;
    keyed.set(keyed.has(name) ? `${name} ${formatDigest(version.digest)}` : name, version);
  }
  return keyed;
}

function createRow(name, toggle) {
  const panelId = uniqueId("version");
  const state = h("span", { class: "version-state" });
  const badges = h("span", { class: "version-badges" });
  const since = h("span", { class: "version-since" });
  const rate = h("span", { class: "version-rate number" });
  const reason = h("span", { class: "version-reason" });
  const button = h(
    "button",
    { type: "button", class: "version-button", "aria-expanded": "false", "aria-controls": panelId, onclick: toggle },
    h("span", { class: "version-name" }, name),
    state,
    h("span", { class: "version-what" }, badges, reason),
    rate,
    since,
  );
  const panel = h("div", { class: "version-panel", id: panelId, hidden: true });
  const element = h("li", { class: "version-row", "data-version": name }, button, panel);
  let shown = "";
  const row = {
    element,
    version: null,
    details: null,
    focus: () => {
      button.focus({ preventScroll: true });
      element.scrollIntoView({ block: "nearest" });
    },
    open: (details) => {
      row.details = details;
      panel.replaceChildren(details.element);
      panel.hidden = false;
      button.setAttribute("aria-expanded", "true");
    },
    close: () => {
      row.details = null;
      panel.hidden = true;
      panel.replaceChildren();
      button.setAttribute("aria-expanded", "false");
    },
    updateRate: ({ requestsPerSecond }) => {
      setText(rate, requestsPerSecond ? `${formatRate(requestsPerSecond)}/s` : "");
    },
    update: (model, version) => {
      row.version = version;
      const seen = describe(model, version);
      const key = JSON.stringify(seen);
      if (key !== shown) {
        shown = key;
        element.dataset.state = version.state;
        state.replaceChildren(stateMark(version.state));
        badges.replaceChildren(...seen.badges.map((badge) => h("span", { class: "chip" }, badge)));
        since.replaceChildren("since ", timestamp(version.since));
        reason.replaceChildren(seen.reason);
      }
      row.details?.update(model, version);
    },
  };
  return row;
}

function describe(model, version) {
  const badges = [];
  if (model.pinned === version.version) badges.push("pinned");
  for (const [label, named] of Object.entries(model.labels)) if (named === version.version) badges.push(label);
  if (version.is_loaded && version.state !== "ACTIVE") badges.push("loaded");
  if (version.is_quarantined && version.state !== "QUARANTINED") badges.push("quarantined");
  return { state: version.state, since: version.since, badges, reason: explain(version) };
}

function explain(version) {
  if (isInProgress(version.state) && version.gates.length > 0) return `${formatCount(version.gates.length, "gate")} so far`;
  return version.reason ?? "";
}
