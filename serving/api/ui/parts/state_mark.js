// A state as word, shape and colour: any one of the three is enough to tell states apart.

import { h, setChildren, svg } from "../dom.js";

/**
 * @typedef {"good" | "busy" | "trial" | "idle" | "warn" | "bad" | "held"} Tone
 * good: it answers; busy: on its way; trial: answers a share; idle: nothing to do; warn: look at it; bad: it failed or was
 * refused; held: an operator keeps it so.
 */

/** @type {Record<string, [Tone, string]>} tone and word of each state of versions, workers and rollouts */
const STATES = {
  ACTIVE: ["good", "Active"],
  READY: ["good", "Ready"],
  DISCOVERED: ["idle", "Discovered"],
  STAGING: ["busy", "Staging"],
  LOADING: ["busy", "Loading"],
  VALIDATING: ["busy", "Validating"],
  WARMING: ["busy", "Warming"],
  SHADOW: ["trial", "Shadow"],
  CANARY: ["trial", "Canary"],
  BAKE: ["trial", "Baking"],
  DRAINING: ["busy", "Draining"],
  RETIRED: ["idle", "Retired"],
  REJECTED: ["bad", "Refused"],
  FAILED: ["bad", "Failed"],
  QUARANTINED: ["held", "Quarantined"],
  STARTING: ["busy", "Starting"],
  SERVING: ["good", "Serving"],
  WAITING: ["bad", "Waiting"],
};

/** Shapes in a square of 12: each tone has its own. */
const SHAPES = {
  good: () => svg("circle", { cx: 6, cy: 6, r: 4.5, fill: "currentColor" }),
  busy: () => [
    svg("circle", { cx: 6, cy: 6, r: 4.5, fill: "none", stroke: "currentColor", "stroke-width": 1.5 }),
    svg("path", { d: "M6 1.5a4.5 4.5 0 0 1 0 9z", fill: "currentColor" }),
  ],
  trial: () => svg("path", { d: "M6 .8 11.2 6 6 11.2.8 6z", fill: "currentColor" }),
  idle: () => svg("circle", { cx: 6, cy: 6, r: 4, fill: "none", stroke: "currentColor", "stroke-width": 1.5 }),
  warn: () => svg("path", { d: "M6 1 11.4 10.8H.6z", fill: "currentColor" }),
  bad: () =>
    svg("path", { d: "M2.4 2.4l7.2 7.2m0-7.2L2.4 9.6", fill: "none", stroke: "currentColor", "stroke-width": 2.4 }),
  held: () => svg("path", { d: "M1.8 1.5h3v9h-3zm5.4 0h3v9h-3z", fill: "currentColor" }),
};

/**
 * Returns the shape of a tone, for decoration beside its word.
 * @param {Tone} tone
 * @returns {SVGElement}
 */
export function toneShape(tone) {
  return svg("svg", { class: `shape tone-${tone}`, viewBox: "0 0 12 12", "aria-hidden": "true" }, SHAPES[tone]());
}

/**
 * Returns a mark of a tone with any word.
 * @param {Tone} tone
 * @param {string} word
 * @returns {HTMLElement}
 */
export function toneMark(tone, word) {
  const mark = h("span", { class: "mark" });
  setToneMark(mark, tone, word);
  return mark;
}

/**
 * Changes what a mark shows; nothing is touched when it shows that already.
 * @param {HTMLElement} mark
 * @param {Tone} tone
 * @param {string} word
 */
export function setToneMark(mark, tone, word) {
  if (mark.dataset.tone === tone && mark.lastChild?.textContent === word) return;
  mark.dataset.tone = tone;
  mark.className = `mark tone-${tone}`;
  setChildren(mark, toneShape(tone), h("span", null, word));
}

/**
 * Returns the mark of a state of a version, worker or rollout.
 * @param {string} state in upper or lower case
 * @returns {HTMLElement}
 */
export function stateMark(state) {
  const [tone, word] = describeState(state);
  return toneMark(tone, word);
}

/**
 * Returns tone and word of a state.
 * @param {string} state in upper or lower case
 * @returns {[Tone, string]}
 */
export function describeState(state) {
  return STATES[state.toUpperCase()] ?? ["idle", state];
}
