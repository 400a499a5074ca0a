// What happened to a model, newest first: who did it, why, and how long it took. The steps of one evaluation are one entry.

import { h, setText } from "../dom.js";
import { formatCount, formatSeconds, zoneName } from "../format.js";
import { currentZone, onZoneChange } from "../time_zone.js";
import { sentenceOf } from "./history_sentence.js";
import { createSection } from "./section.js";
import { describeState, stateMark } from "./state_mark.js";
import { timestamp } from "./timestamp.js";

const WORK = new Set(["STAGING", "LOADING", "VALIDATING", "WARMING"]);
const ON_THE_WAY = new Set([...WORK, "READY"]);
const PAGE = 50;

/**
 * Return `{element, load, reload, add, dispose}` for the timeline of a model. `api` reads older entries; `reload` forgets
 * those that are shown, because their numbers may have begun again.
 */
export function createTimeline(name, api) {
  const list = h("ol", { class: "timeline" });
  const empty = h("p", { class: "muted", hidden: true }, "Nothing has happened yet.");
  const failure = h("p", { class: "outcome outcome-bad", hidden: true });
  const more = h("button", { type: "button", class: "button", hidden: true }, "Show older");
  const zone = h("p", { class: "muted" });
  const showGroups = createSection(list, (groups) => groups.map(createEntry));
  const entries = new Map();
  let before = null;

  const showZone = () => setText(zone, `Times are in ${zoneName(currentZone())}.`);
  const endZone = onZoneChange(showZone);
  showZone();

  function show() {
    const groups = groupEntries([...entries.values()]);
    showGroups(groups);
    empty.hidden = groups.length > 0;
  }

  async function read(query) {
    try {
      const page = await api.getJson(`${api.pathOf("models", name, "history")}?limit=${PAGE}${query}`);
      for (const entry of page.history) entries.set(entry.id, entry);
      failure.hidden = true;
      return page;
    } catch (problem) {
      failure.textContent = `The history cannot be read: ${problem.detail || problem.message}`;
      failure.hidden = false;
      return null;
    }
  }

  async function load() {
    const page = await read("");
    if (page === null) return;
    if (before === null || entries.size <= page.history.length) before = page.before;
    more.hidden = before === null;
    show();
  }

  more.addEventListener("click", async () => {
    const page = await read(`&before=${before}`);
    if (page === null) return;
    before = page.before;
    more.hidden = before === null;
    show();
  });

  return {
    element: h("div", { class: "timeline-box" }, zone, failure, list, empty, more),
    load,
    reload: () => {
      entries.clear();
      before = null;
      return load();
    },
    dispose: endZone,
    add: (entry) => {
      if (entries.has(entry.id)) return;
      entries.set(entry.id, entry);
      show();
    },
  };
}

/** Return the entries as groups, newest first: the steps of one evaluation are a group, all others are alone. */
export function groupEntries(entries) {
  const groups = [];
  const open = new Map();
  for (const entry of entries.toSorted((one, other) => one.id - other.id)) {
    const isStep = entry.event === "transition" && entry.actor === "system";
    const group = isStep ? open.get(entry.version) : undefined;
    if (group !== undefined) group.push(entry);
    else groups.push([entry]);
    if (isStep && ON_THE_WAY.has(entry.after)) open.set(entry.version, group ?? groups.at(-1));
    else open.delete(entry.version);
  }
  return groups.toSorted((one, other) => other.at(-1).id - one.at(-1).id);
}

function createEntry(group) {
  const last = group.at(-1);
  const isTransition = last.after !== null;
  return h(
    "li",
    { class: "event", "data-event": last.event, "data-id": String(last.id) },
    h(
      "p",
      { class: "event-title" },
      isTransition
        ? [h("strong", null, last.version), " ", stateMark(last.after)]
        : h("strong", null, describeCall(last)),
    ),
    last.reason === null ? null : h("p", { class: "event-reason" }, last.reason),
    h(
      "p",
      { class: "event-facts muted" },
      timestamp(last.at),
      ` by ${last.actor}`,
      describeDuration(group),
    ),
    group.length > 1 ? createSteps(group) : null,
  );
}

function describeCall(entry) {
  const { before, name } = sentenceOf(entry, { isOfModel: true });
  return `${before} ${name}`;
}

/** How long an evaluation took; for other transitions, how long the state before lasted. */
function describeDuration(group) {
  const steps = group.filter((entry) => WORK.has(entry.before));
  if (steps.length > 0) return `, took ${formatSeconds(steps.reduce((sum, entry) => sum + entry.duration_seconds, 0))}`;
  const { before, duration_seconds: seconds } = group.at(-1);
  return before === null || seconds === null ? null : `, after ${formatSeconds(seconds)} as ${describeState(before)[1].toLowerCase()}`;
}

function createSteps(group) {
  return h(
    "details",
    { class: "event-steps", "data-key": `steps-${group[0].id}` },
    h("summary", null, formatCount(group.length, "step")),
    h(
      "ol",
      null,
      group.map((entry) =>
        h(
          "li",
          null,
          `${describeState(entry.before)[1]} → ${describeState(entry.after)[1]} `,
          timestamp(entry.at, "clock"),
          entry.duration_seconds === null ? null : ` after ${formatSeconds(entry.duration_seconds)}`,
          entry.reason === null ? null : `: ${entry.reason}`,
        ),
      ),
    ),
  );
}
