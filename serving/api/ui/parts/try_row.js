// One row for a model as the text of a JSON body: what was typed is sent as it is, so that the server judges it.

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const MOST_FIELDS = 30;

/** Say whether a row of this signature is typed as one JSON text, not field by field. */
export function needsJson(signature) {
  const { container, features } = signature;
  return container === "texts" || container === "objects" || features.length === 0 || features.length > MOST_FIELDS;
}

/** Return the text that a field holds at first: zero for numbers, the first known category, else nothing. */
export function suggestText(feature, known) {
  if (known?.length) return JSON.stringify(known[0]);
  if (feature.dtype === "number") return "0";
  return feature.dtype === "bool" ? "false" : "";
}

/**
 * Return the JSON of a cell for what was typed. Numbers stay as they were typed, because a number of JavaScript would
 * round large ones; a text that is no number is sent as a text, and the server says what is wrong with it.
 */
export function encodeCell(feature, typed, isMissing) {
  if (isMissing) return "null";
  if (feature.dtype === "string") return JSON.stringify(typed);
  const text = typed.trim();
  if (NUMBER.test(text) || text === "true" || text === "false") return text;
  return JSON.stringify(typed);
}

/** Return the JSON of a row: an object by name where the model was fitted on names, else an array. */
export function encodeRow(signature, cells) {
  const names = signature.features.map((feature) => feature.name);
  if (signature.is_named && new Set(names).size === names.length) {
    const used = cells.map((cell, place) => [signature.features[place], cell]).filter(([feature]) => feature.is_used);
    return `{${used.map(([feature, cell]) => `${JSON.stringify(feature.name)}: ${cell}`).join(", ")}}`;
  }
  return `[${cells.map((cell, place) => (signature.features[place].is_used ? cell : "null")).join(", ")}]`;
}

/** Return a row that the model may take, as JSON, for the form that takes JSON. */
export function suggestRow(signature, known) {
  if (signature.container === "texts") return '"a text"';
  if (signature.container === "objects") return '{"name": 1}';
  const cells = signature.features.map((feature, place) => {
    const values = known[place];
    return values?.length ? JSON.stringify(values[0]) : encodeCell(feature, suggestText(feature), false);
  });
  return encodeRow(signature, cells);
}

/** Return the body of a prediction of one row, whose JSON is `row`. */
export function encodeBody(row, method) {
  return `{"input": ${row}, "method": ${JSON.stringify(method)}}`;
}

/** Return the place of the feature that a refusal names, -1 where it names none. */
export function findNamedFeature(features, detail) {
  let found = -1;
  for (const [place, feature] of features.entries()) {
    const isLonger = found < 0 || feature.name.length > features[found].name.length;
    if (isLonger && detail.includes(`'${feature.name}'`)) found = place;
  }
  return found;
}
