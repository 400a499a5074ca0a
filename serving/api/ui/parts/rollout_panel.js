// How a new version takes over: what is under way with its evidence, and how the last one ended.

import { h } from "../dom.js";
import { formatCount, formatNumber } from "../format.js";
import { createCurve, formatValue } from "./evidence_curve.js";
import { toneMark } from "./state_mark.js";
import { timestamp } from "./timestamp.js";

const PHASES = {
  shadow: "Shadow",
  canary: "Canary",
  bake: "Bake",
};
const ABOUT = {
  shadow: "answers copies of requests; nobody sees its answers",
  canary: "answers a share of the requests",
  bake: "is active; the old version keeps a part of the requests to compare with",
};
const VERDICTS = {
  wait: ["busy", "waits for more"],
  promote: ["good", "as good"],
  rollback: ["bad", "worse"],
  inconclusive: ["warn", "inconclusive"],
};
const ENDS = {
  promoted: ["good", "promoted"],
  "rolled-back": ["bad", "rolled back"],
  superseded: ["idle", "superseded"],
};
const STRATEGIES = {
  swap: "A new version takes over all at once, as soon as it has passed the gates.",
  shadow: "A new version answers copies of requests first, then takes over.",
  canary: "A new version answers a growing share of the requests, then takes over.",
};

/** Return the children of the panel for `GET /models/NAME/rollout`; it is `width` pixels wide. */
export function buildRollout({ rollout, width }) {
  return [
    h("p", { class: "muted" }, STRATEGIES[rollout.strategy] ?? rollout.strategy),
    rollout.is_stopped
      ? h(
          "p",
          { class: "notice notice-warn" },
          "Two versions in a row went back by themselves, so no rollout begins until an operator says so.",
        )
      : null,
    rollout.running === null ? null : buildRunning(rollout.running, width),
    rollout.last === null ? null : buildLast(rollout.last),
  ];
}

function buildRunning(running, width) {
  return h(
    "div",
    { class: "rollout-running", "data-version": running.version },
    h(
      "p",
      { class: "rollout-head" },
      toneMark("trial", PHASES[running.phase]),
      h("strong", null, ` ${running.version} `),
      ABOUT[running.phase],
      ", against ",
      h("strong", null, running.against),
      ". ",
      running.is_held ? toneMark("held", "held") : null,
      running.observe ? toneMark("idle", "only observed: no verdict has a consequence") : null,
    ),
    createSteps(running),
    h(
      "p",
      { class: "rollout-verdict" },
      toneMark(...(VERDICTS[running.verdict] ?? ["idle", running.verdict])),
      " ",
      running.reason,
    ),
    createCounts(running),
    h(
      "p",
      { class: "rollout-value" },
      "Evidence that it is worse: e-value ",
      h("strong", null, formatValue(running.e_value)),
      ` of ${formatValue(running.threshold)}, at which it goes back.`,
    ),
    createCurve(running, width),
    createShadow(running.shadow),
    createExamples(running.examples),
    createShifts(running.shifts, running),
  );
}

function createSteps(running) {
  const steps = Array.from({ length: running.steps }, (_, place) => {
    const number = place + 1;
    const where = number < running.step ? "done" : number === running.step ? "now" : "later";
    return h("li", { class: `step step-${where}`, "aria-current": where === "now" ? "step" : null }, String(number));
  });
  return h(
    "div",
    { class: "rollout-steps" },
    h("ol", { class: "steps", "aria-label": `Step ${running.step} of ${running.steps}` }, steps),
    h("span", null, `Step ${running.step} of ${running.steps}, `, h("strong", null, `${running.share}%`), " of the requests"),
  );
}

function createCounts(one) {
  const rows = [
    [`${one.version} (new)`, one.new],
    [one.against === undefined ? "old" : `${one.against} (old)`, one.old],
  ];
  return h(
    "table",
    { class: "table counts" },
    h("caption", { class: "visually-hidden" }, "Answers of both versions"),
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        h("th", { scope: "col" }, "Version"),
        ["Answers", "Bad", "Bad of 100"].map((name) => h("th", { scope: "col", class: "number" }, name)),
      ),
    ),
    h(
      "tbody",
      null,
      rows.map(([name, count]) =>
        h(
          "tr",
          null,
          h("th", { scope: "row" }, name),
          h("td", { class: "number" }, formatNumber(count.answers)),
          h("td", { class: "number" }, formatNumber(count.bad)),
          h("td", { class: "number" }, count.answers ? formatNumber((100 * count.bad) / count.answers, 2) : "–"),
        ),
      ),
    ),
  );
}

function createShadow(shadow) {
  if (!shadow) return null;
  const failed = `${formatNumber(shadow.failed_new)} failed only in the new version, ${formatNumber(shadow.failed_old)} only in the old one`;
  return h(
    "div",
    { class: "shadow" },
    h("h3", null, "Copies"),
    h("p", null, `${formatCount(shadow.pairs, "pair")} compared, ${formatNumber(shadow.dropped)} copies dropped for lack of room; ${failed}.`),
    shadow.differences.length === 0
      ? null
      : h(
          "table",
          { class: "table" },
          h("caption", { class: "visually-hidden" }, "Differences between the answers of both versions"),
          h(
            "thead",
            null,
            h(
              "tr",
              null,
              h("th", { scope: "col" }, "Output"),
              ["Rows", "Differing", "Mean difference", "Worst"].map((name) => h("th", { scope: "col", class: "number" }, name)),
            ),
          ),
          h(
            "tbody",
            null,
            shadow.differences.map((one) =>
              h(
                "tr",
                null,
                h("th", { scope: "row" }, one.output),
                h("td", { class: "number" }, formatNumber(one.rows)),
                h("td", { class: "number" }, formatNumber(one.differing)),
                h("td", { class: "number" }, one.mean === null ? "–" : formatValue(one.mean)),
                h("td", { class: "number" }, one.worst === null ? "–" : formatValue(one.worst)),
              ),
            ),
          ),
        ),
  );
}

function createExamples(examples) {
  if (examples.length === 0) return null;
  return h(
    "div",
    { class: "examples" },
    h("h3", null, "Bad answers of the new version"),
    h(
      "ul",
      null,
      examples.map((one) => h("li", null, h("code", null, String(one.status)), ` ${one.detail}`)),
    ),
  );
}

function createShifts(shifts, running) {
  if (shifts.length === 0) return null;
  return h(
    "div",
    { class: "shifts" },
    h("h3", null, "Shift of the answers"),
    h("p", { class: "muted" }, "How differently the answers are spread: 0 for alike, 1 for ones that never meet. Evidence, never a verdict."),
    shifts.map((shift) => {
      const keys = [...new Set([...Object.keys(shift.old), ...Object.keys(shift.new)])];
      return h(
        "table",
        { class: "table" },
        h("caption", null, `${shift.output}: ${formatNumber(shift.effect, 3)}`),
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            h("th", { scope: "col" }, "Quantile or label"),
            [running.against, running.version].map((name) => h("th", { scope: "col", class: "number" }, name)),
          ),
        ),
        h(
          "tbody",
          null,
          keys.map((key) =>
            h(
              "tr",
              null,
              h("th", { scope: "row" }, key),
              [shift.old, shift.new].map((side) =>
                h("td", { class: "number" }, side[key] === undefined ? "–" : formatNumber(side[key], 4)),
              ),
            ),
          ),
        ),
      );
    }),
  );
}

function buildLast(last) {
  return h(
    "div",
    { class: "rollout-last", "data-version": last.version },
    h("h3", null, "The last one"),
    h(
      "p",
      null,
      h("strong", null, last.version),
      " ",
      toneMark(...(ENDS[last.end] ?? ["idle", last.end])),
      " ",
      timestamp(last.at),
      ` by ${last.actor}: ${last.reason}`,
    ),
    createCounts(last),
    h("p", { class: "muted" }, `e-value at the end: ${formatValue(last.e_value)}`),
    createShadow(last.shadow),
    createExamples(last.examples),
  );
}
