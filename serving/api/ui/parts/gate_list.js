// The gates of one version in their order: verdict, what was seen, and how long it took. Also while they run.

import { h } from "../dom.js";
import { formatSeconds } from "../format.js";
import { toneMark } from "./state_mark.js";

/** Every gate, in the order in which a candidate passes them, as the server names them. */
export const GATE_NAMES = [
  "published",
  "integrity",
  "provenance",
  "format",
  "load",
  "environment",
  "contract",
  "golden",
  "finite",
  "budget",
  "batching",
  "replay",
  "compile",
  "warm-up",
];

const VERDICTS = {
  passed: ["good", "passed"],
  warned: ["warn", "warned"],
  skipped: ["idle", "skipped"],
  refused: ["bad", "refused"],
  running: ["busy", "running"],
  waiting: ["idle", "to come"],
};
const IN_PROGRESS = new Set(["STAGING", "LOADING", "VALIDATING", "WARMING"]);

/** Say whether a version in this state is being evaluated. */
export function isInProgress(state) {
  return IN_PROGRESS.has(state);
}

/**
 * Return a list of gates. `gates` are the results so far; with `isRunning` the one that comes next is shown as running,
 * and those after it as still to come.
 */
export function createGateList(gates, isRunning) {
  const rows = gates.map((gate) => createGate(gate.gate, gate.verdict, gate.evidence, gate.duration_seconds));
  if (isRunning && !gates.some((gate) => gate.verdict === "refused")) {
    const passed = new Set(gates.map((gate) => gate.gate));
    const left = GATE_NAMES.filter((name) => !passed.has(name));
    rows.push(...left.map((name, place) => createGate(name, place === 0 ? "running" : "waiting", "", null)));
  }
  if (rows.length === 0) return h("p", { class: "muted" }, "No gate has looked at it yet.");
  return h("ol", { class: "gates" }, rows);
}

function createGate(name, verdict, evidence, seconds) {
  return h(
    "li",
    { class: `gate gate-${verdict}`, "data-gate": name, "data-verdict": verdict },
    h("span", { class: "gate-name" }, name),
    toneMark(...VERDICTS[verdict]),
    h("span", { class: "gate-evidence" }, evidence),
    h("span", { class: "gate-time" }, seconds === null ? "" : formatSeconds(seconds)),
  );
}
