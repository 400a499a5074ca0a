// The contract of a version: what it takes, with types and categories, and what it answers.

import { h } from "../dom.js";
import { formatCount, formatNumber } from "../format.js";

const SHOWN_FEATURES = 50;
const SHOWN_VALUES = 30;
const TYPES = { number: "number", string: "text", bool: "true or false", any: "any value" };
const CONTAINERS = {
  array: "an array of numbers",
  dataframe: "a table",
  texts: "texts",
  objects: "objects",
};

/** Return the signature as a table; `known` gives, by the position of a feature, the only values that it may have. */
export function createSignature(signature, known) {
  return h(
    "div",
    { class: "signature" },
    h(
      "dl",
      { class: "fact-list" },
      createFact("Kind", signature.kind.replaceAll("_", " ")),
      createFact("Takes", `${describeInput(signature)}; fitted on ${CONTAINERS[signature.container] ?? signature.container}`),
      createFact("Methods", signature.methods.join(", ")),
      createFact("Outputs", describeOutputs(signature)),
      signature.classes?.map((labels, output) =>
        createFact(signature.classes.length === 1 ? "Classes" : `Classes of output ${output}`, listValues(labels)),
      ),
    ),
    signature.features.length === 0 ? null : createFeatures(signature.features, known),
  );
}

/** Return one row of a list of facts; nothing where the value is not known. */
export function createFact(name, ...value) {
  if (value.every((part) => part === null || part === undefined || part === "")) return null;
  return h("div", { class: "fact" }, h("dt", null, name), h("dd", null, ...value));
}

function describeInput(signature) {
  if (signature.container === "texts") return "one text per row";
  if (signature.container === "objects") return "one object per row";
  return formatCount(signature.features.length, "feature");
}

function describeOutputs(signature) {
  return signature.outputs === 1 ? "one value per row" : `${formatNumber(signature.outputs)} values per row`;
}

function createFeatures(features, known) {
  const table = h(
    "table",
    { class: "table features" },
    h("caption", { class: "visually-hidden" }, "Features"),
    h(
      "thead",
      null,
      h("tr", null, ...["Feature", "Type", "May be missing", "Values"].map((name) => h("th", { scope: "col" }, name))),
    ),
  );
  const body = h("tbody", null);
  table.append(body);
  const show = (rows, offset) =>
    body.append(...rows.map((feature, place) => createFeature(feature, known[offset + place])));
  show(features.slice(0, SHOWN_FEATURES), 0);
  if (features.length <= SHOWN_FEATURES) return h("div", { class: "table-scroll", tabindex: "0" }, table);
  const more = h("button", { type: "button", class: "button" }, `Show all ${formatNumber(features.length)} features`);
  more.addEventListener("click", () => {
    show(features.slice(SHOWN_FEATURES, 5000), SHOWN_FEATURES);
    more.replaceWith(features.length > 5000 ? `the first 5,000 of ${formatNumber(features.length)}` : "");
  });
  return h("div", { class: "table-scroll", tabindex: "0" }, table, more);
}

function createFeature(feature, values) {
  return h(
    "tr",
    null,
    h("th", { scope: "row" }, h("code", null, feature.name)),
    h("td", null, TYPES[feature.dtype] ?? feature.dtype),
    h("td", null, feature.nullable ? "yes" : "no"),
    h("td", null, feature.is_used ? (values === undefined ? "any" : listValues(values)) : "ignored"),
  );
}

/** Return the first of these values as text, as JSON has them. */
function listValues(values) {
  const shown = values.slice(0, SHOWN_VALUES).map((value) => JSON.stringify(value));
  const left = values.length - shown.length;
  return shown.join(", ") + (left > 0 ? ` and ${formatNumber(left)} more` : "");
}
