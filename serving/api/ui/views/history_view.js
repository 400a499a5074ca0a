// What happened, newest first: everything, or what the filters let through. New entries come by the stream, older ones
// when somebody asks for them.

import { h, oncePerFrame, setChildren, setText } from "../dom.js";
import { formatDay, formatSeconds } from "../format.js";
import { banner } from "../parts/banner.js";
import { makeHistoryFilters, passesFilters, readFilters } from "../parts/history_filters.js";
import { sentenceOf } from "../parts/history_sentence.js";
import { describeState, toneShape } from "../parts/state_mark.js";
import { timestamp } from "../parts/timestamp.js";
import { hashOf, replaceHash } from "../router.js";
import { currentZone, onZoneChange } from "../time_zone.js";

const PAGE_ENTRIES = 100;

/** @type {import("../main.js").Show} */
export function show(container, { live, api }, { query }) {
  let filters = readFilters(query);
  /** @type {Map<number, {entry: any, element: HTMLElement}>} */
  const shown = new Map();
  let before = null;
  let reading = new AbortController();

  const form = makeHistoryFilters({ filters, listModels: () => live.models.keys(), onChange: change });
  const notice = h("div", { class: "banners" });
  const list = h("div", { class: "history", "aria-busy": "true" });
  const status = h("p", { class: "muted", role: "status" }, "Reading the history…");
  const older = h("button", { type: "button", class: "button", hidden: true, onclick: () => read(before) }, "Show older");
  setChildren(container, h("h1", null, "History"), form.element, notice, list, status, older);

  function change(next) {
    if (JSON.stringify(next) === JSON.stringify(filters)) return;
    filters = next;
    replaceHash(hashOf("history", null, filters));
    read(null);
  }

  /** Reads a page; null is the newest one, which takes the place of what is shown. */
  async function read(from) {
    reading.abort();
    reading = new AbortController();
    const { signal } = reading;
    older.disabled = true;
    list.setAttribute("aria-busy", "true");
    const parameters = new URLSearchParams({ ...filters, limit: PAGE_ENTRIES, ...(from === null ? {} : { before: from }) });
    try {
      const page = await api.getJson(`history?${parameters}`, { signal });
      if (from === null) shown.clear();
      for (const entry of page.history) add(entry);
      for (const entry of from === null ? live.history : []) if (isNewerPart(entry, page)) add(entry);
      before = page.before;
      setText(status, shown.size ? (before === null ? "That is all." : "") : Object.keys(filters).length ? "Nothing matches the filters." : "Nothing has happened yet.");
      setChildren(notice);
      draw();
    } catch (problem) {
      if (problem.name === "AbortError") return;
      setText(status, "");
      const again = h("button", { type: "button", class: "button small", onclick: () => read(from) }, "Try again");
      setChildren(notice, banner({ tone: "bad", title: problem.title ?? "The history cannot be read", text: problem.detail ?? problem.message, action: again }));
    } finally {
      if (!signal.aborted) {
        list.setAttribute("aria-busy", "false");
        older.disabled = false;
        older.hidden = before === null;
      }
    }
  }

  /** The stream may have been faster than the page; entries that are older than the page belong to another page. */
  function isNewerPart(entry, page) {
    return passesFilters(entry, filters) && (page.before === null || entry.id >= page.before);
  }

  function add(entry) {
    if (!shown.has(entry.id)) shown.set(entry.id, { entry, element: makeEntry(entry) });
  }

  function draw() {
    const days = new Map();
    for (const { entry, element } of [...shown.values()].sort((a, b) => b.entry.id - a.entry.id)) {
      const day = formatDay(entry.at, currentZone());
      if (!days.has(day)) days.set(day, []);
      days.get(day).push(element);
    }
    const focused = document.activeElement;
    setChildren(list, ...[...days].map(([day, entries]) => h("section", { class: "day" }, h("h2", null, day), h("ol", { class: "entries" }, entries))));
    if (list.contains(focused) && focused !== document.activeElement) focused.focus({ preventScroll: true });
  }
  const drawSoon = oncePerFrame(draw);

  const endings = [
    live.subscribe(["history"], (_, entry) => {
      if (!passesFilters(entry, filters)) return;
      add(entry);
      setText(status, before === null ? "That is all." : "");
      drawSoon();
    }),
    live.subscribe(["gap"], (_, { reason }) => {
      setChildren(notice, banner({ tone: "warn", title: "Some entries are gone", text: reason }));
      read(null);
    }),
    onZoneChange(drawSoon),
  ];
  read(null);
  return () => {
    for (const end of endings) end();
    form.dispose();
    drawSoon.cancel();
    reading.abort();
  };
}

function makeEntry(entry) {
  const sentence = sentenceOf(entry);
  const tone = sentence.state ? describeState(sentence.state)[0] : "held";
  const spent = sentence.spent && entry.duration_seconds !== null ? `${sentence.spent} ${formatSeconds(entry.duration_seconds)}` : null;
  return h(
    "li",
    { class: sentence.isOutcome ? "entry" : "entry is-step", "data-id": entry.id },
    timestamp(entry.at, "clock"),
    toneShape(tone),
    h(
      "p",
      { class: "entry-sentence" },
      sentence.before && `${sentence.before} `,
      h("a", { href: hashOf("models", entry.model) }, sentence.name),
      sentence.after && ` ${sentence.after}`,
      sentence.actor && [" by ", h("span", { class: "entry-actor" }, sentence.actor)],
      entry.reason && [": ", h("span", { class: "entry-reason" }, entry.reason)],
      spent && h("span", { class: "entry-spent" }, ` · ${spent}`),
    ),
  );
}
