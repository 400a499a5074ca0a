// The columns of the table of models: what each cell shows, and by what it sorts.

import { h, setAttributes, setChildren, setText } from "../dom.js";
import { formatCount, formatP99, formatPercent, formatRate, NOTHING } from "../format.js";
import { hashOf } from "../router.js";
import { stateMark, toneMark, toneShape } from "./state_mark.js";
import { timestamp } from "./timestamp.js";

/**
 * Says whether another version than the active one is on its way.
 * @param {import("../live_state.js").ModelEntry} entry
 * @returns {boolean}
 */
export function isComing({ active, target }) {
  return Boolean(target) && target.version !== active?.version;
}

const entryOf = ({ entry }) => entry;

/** @type {import("./sorted_table.js").Column<{entry: import("../live_state.js").ModelEntry, rates: import("../traffic_rates.js").Rates}>[]} */
export const MODEL_COLUMNS = [
  { key: "name", title: "Model", isHead: true, sortBy: ({ entry }) => entry.name, watch: entryOf, update: updateName },
  { key: "active", title: "Active version", sortBy: ({ entry }) => entry.active?.version, watch: entryOf, update: updateActive },
  { key: "engine", title: "Engine", sortBy: ({ entry }) => entry.active?.engine, watch: entryOf, update: updateEngine },
  { key: "coming", title: "Coming", sortBy: sortByComing, watch: entryOf, update: updateComing },
  {
    key: "requests",
    title: "Requests/s",
    isNumber: true,
    hint: "Over the last ten seconds",
    sortBy: ({ rates }) => rates.requestsPerSecond,
    watch: describeRequests,
    update: (cell, item) => setNumber(cell, describeRequests(item)),
  },
  {
    key: "p99",
    title: "p99",
    isNumber: true,
    hint: "99 of 100 requests are answered within this time, over the last ten seconds",
    sortBy: ({ rates }) => rates.p99Seconds,
    watch: describeP99,
    update: (cell, item) => setNumber(cell, describeP99(item)),
  },
  {
    key: "errors",
    title: "Errors/s",
    isNumber: true,
    hint: "Answers with a 5xx status, over the last ten seconds",
    sortBy: ({ rates }) => rates.failedPerSecond,
    watch: ({ rates }) => `${formatRate(rates.failedPerSecond)} ${formatRate(rates.refusedPerSecond)}`,
    update: updateErrors,
  },
  { key: "failure", title: "Last failure", sortBy: sortByFailure, watch: entryOf, update: updateFailure },
];

function sortByComing({ entry }) {
  return isComing(entry) || entry.rollout ? `${entry.rollout?.phase ?? ""} ${entry.target?.state}` : null;
}

function sortByFailure({ entry }) {
  return entry.last_failure ? -new Date(entry.last_failure.at) : null;
}

function describeRequests({ rates }) {
  return formatRate(rates.requestsPerSecond);
}

function describeP99({ rates }) {
  return formatP99(rates);
}

function updateName(cell, { entry }) {
  const { name, pinned, labels, problem, warnings, quarantined, active } = entry;
  const note = problem ?? active?.note ?? null;
  const chips = [
    pinned && h("span", { class: "chip" }, toneShape("held"), `Pinned to ${pinned}`),
    ...Object.entries(labels).map(([label, version]) => h("span", { class: "chip" }, `${label} → ${version}`)),
    quarantined.length > 0 && h("span", { class: "chip" }, toneShape("held"), `${quarantined.length} quarantined`),
    warnings.length > 0 &&
      h(
        "span",
        { class: "chip", title: warnings.map((one) => `${one.gate}: ${one.evidence}`).join("\n") },
        toneShape("warn"),
        formatCount(warnings.length, "warning"),
      ),
  ].filter(Boolean);
  const link = cell.querySelector("a") ?? h("a", { href: hashOf("models", name), class: "model-link" }, name);
  if (!link.isConnected) cell.prepend(link); // it stays, because it may have the focus
  while (link.nextSibling) link.nextSibling.remove();
  if (chips.length) cell.append(h("span", { class: "row-chips" }, chips));
  if (note) cell.append(h("span", { class: "row-note" }, toneShape("warn"), h("span", null, note)));
}

function updateActive(cell, { entry }) {
  const { active } = entry;
  if (!active) {
    setChildren(cell, toneMark(...describeAbsence(entry)));
    return;
  }
  const shape = h("span", { class: "tone-good" }, toneShape("good"));
  setChildren(
    cell,
    h("span", { class: "mark" }, shape, h("span", { class: "version" }, active.version)),
    h("span", { class: "visually-hidden" }, " active"),
  );
}

/**
 * Says why no version answers, as tone and word.
 * @param {import("../live_state.js").ModelEntry} entry
 * @returns {[import("./state_mark.js").Tone, string]}
 */
export function describeAbsence(entry) {
  if (entry.unloaded) return ["held", "Unloaded"];
  return isComing(entry) ? ["idle", "None yet"] : ["bad", "Nothing active"];
}

function updateEngine(cell, { entry: { active } }) {
  const environment = active && active.environment !== "own" ? ` in ${active.environment}` : "";
  setText(cell, active ? `${active.engine}${environment}` : NOTHING);
}

function updateComing(cell, { entry }) {
  const { target, rollout } = entry;
  if (!isComing(entry) && !rollout) {
    setChildren(cell, h("span", { class: "muted" }, NOTHING));
    return;
  }
  if (rollout && !rollout.version) {
    setChildren(cell, toneMark("warn", "Rollouts stopped"));
    return;
  }
  const state = rollout?.phase ?? target?.state ?? "";
  setChildren(
    cell,
    h(
      "span",
      { class: "coming" },
      h("span", { class: "version" }, rollout?.version ?? target?.version),
      stateMark(state),
    ),
    rollout &&
      h(
        "span",
        { class: "share" },
        shareBar(rollout.share),
        formatPercent(rollout.share),
        rollout.is_held && toneMark("held", "Held"),
      ),
  );
}

function shareBar(share) {
  const filled = h("span", { style: { width: `${Math.min(share, 100)}%` } });
  return h("span", { class: "share-bar", "aria-hidden": "true" }, filled);
}

function updateErrors(cell, { rates: { failedPerSecond: failed, refusedPerSecond: refused } }) {
  setNumber(cell, formatRate(failed));
  cell.classList.toggle("is-bad", failed > 0);
  const note = `Beside these, ${formatRate(refused)}/s were refused with a 4xx status: the client’s fault`;
  setAttributes(cell, { title: refused > 0 ? note : null });
}

function updateFailure(cell, { entry: { last_failure: failure } }) {
  if (!failure) {
    setChildren(cell, h("span", { class: "muted" }, NOTHING));
    return;
  }
  const { version, gate, reason, at } = failure;
  setChildren(
    cell,
    h(
      "span",
      { class: "failure-head" },
      toneShape("bad"),
      h("span", { class: "version" }, version),
      ` ${gate}`,
      h("span", { class: "muted" }, " · ", timestamp(at, "ago")),
    ),
    h("span", { class: "clamped", title: reason }, reason),
  );
}

function setNumber(cell, text) {
  setText(cell, text);
  cell.classList.toggle("muted", text === NOTHING || text === "0");
}
