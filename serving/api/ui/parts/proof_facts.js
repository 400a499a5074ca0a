// Whether a version answers in a compiled form, and the evidence that this form gives the same answers.

import { h } from "../dom.js";
import { formatBytes, formatCount, formatNumber, formatSeconds } from "../format.js";
import { createFact } from "./signature_table.js";
import { toneMark } from "./state_mark.js";

/** Return the proof of `compilation`, null where compiling was not tried. */
export function createProof(compilation) {
  if (compilation === null) return h("p", { class: "muted" }, "Compiling was not tried.");
  const isCompiled = compilation.engine !== null;
  const mark = isCompiled
    ? ["good", "compiled and proved equal"]
    : ["idle", "answers in its host"];
  const tried = compilation.rows.reduce((sum, each) => sum + each.rows, 0);
  return h(
    "div",
    { class: "proof" },
    h("p", { class: "proof-verdict" }, toneMark(...mark), " ", compilation.reason),
    h(
      "dl",
      { class: "fact-list" },
      createFact("Compared", tried === 0 ? null : `${formatCount(tried, "row")}: ${listKinds(compilation.rows)}`),
      createFact(
        "Largest difference",
        compilation.largest_difference === null ? null : formatDifference(compilation.largest_difference),
      ),
      createFact("Another attempt", compilation.is_final ? null : "may succeed: compiling was stopped, it did not fail"),
      createFact("Memory", compilation.lacks_memory ? "there is a proved form, but no room for it in the workers" : null),
      createFact("Refuses", describeGuard(compilation.guard)),
      createFact("Size", compilation.graph_bytes === null ? null : formatBytes(compilation.graph_bytes)),
      createFact("Time to compile", compilation.seconds ? formatSeconds(compilation.seconds) : null),
    ),
    createTimes(compilation),
  );
}

function createTimes(compilation) {
  const rows = [
    ["1 row", compilation.row_seconds],
    [formatCount(compilation.batch_rows, "row"), compilation.batch_seconds],
  ].filter(([, pair]) => pair !== null && pair !== undefined);
  if (rows.length === 0) return null;
  return h(
    "table",
    { class: "table times" },
    h("caption", null, "Median time of the default method"),
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        h("th", { scope: "col" }, "For"),
        ...["Estimator", "Compiled", "Faster"].map((name) => h("th", { scope: "col", class: "number" }, name)),
      ),
    ),
    h(
      "tbody",
      null,
      rows.map(([name, [estimator, graph]]) =>
        h(
          "tr",
          null,
          h("th", { scope: "row" }, name),
          h("td", { class: "number" }, formatSeconds(estimator)),
          h("td", { class: "number" }, formatSeconds(graph)),
          h("td", { class: "number" }, graph > 0 ? `${formatNumber(estimator / graph, 1)} ×` : ""),
        ),
      ),
    ),
  );
}

function listKinds(kinds) {
  return kinds.map((each) => `${formatNumber(each.rows)} ${each.kind}`).join(", ");
}

function formatDifference(difference) {
  return difference === 0 ? "none" : `${difference.toExponential(1)}, relative to the number`;
}

function describeGuard(guard) {
  const known = Object.keys(guard.known).length;
  const parts = [];
  if (guard.largest !== null) parts.push(`numbers above ${guard.largest.toExponential(1)}`);
  if (guard.smallest !== null) parts.push(`numbers below ${guard.smallest.toExponential(1)}`);
  if (known > 0) parts.push(`unknown values of ${formatCount(known, "feature")}`);
  return parts.length === 0 ? null : parts.join("; ");
}
