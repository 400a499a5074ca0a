// The fields of a row: one for each feature, of the kind that its type asks for; or one text of JSON.

import { h, setText, uniqueId } from "../dom.js";
import { encodeCell, encodeRow, findNamedFeature, suggestRow, suggestText } from "./try_row.js";

/**
 * Return `{element, readRow, markProblem, clear}` for a form of one field per feature. `known` gives, by the position of
 * a feature, the only values that it may have. `markProblem(detail)` marks the field that a refusal names.
 */
export function createFields(signature, known) {
  const fields = signature.features.map((feature, place) => createField(feature, known[place]));
  return {
    element: h("div", { class: "try-fields" }, fields.map((field) => field.element)),
    readRow: () => encodeRow(signature, fields.map((field) => field.read())),
    clear: () => fields.forEach((field) => field.mark("")),
    markProblem: (detail) => {
      const place = findNamedFeature(signature.features, detail);
      if (place < 0) return false;
      fields[place].mark(detail);
      fields[place].focus();
      return true;
    },
  };
}

/** Return the same for a row that is typed as JSON. */
export function createJsonField(signature, known) {
  const id = uniqueId("row");
  const error = h("span", { class: "field-error", id: `${id}-error` });
  const text = h("textarea", { class: "input try-json", id, rows: "5", spellcheck: "false", "aria-describedby": `${id}-error` });
  text.value = suggestRow(signature, known);
  const mark = (detail) => {
    setText(error, detail);
    if (detail) text.setAttribute("aria-invalid", "true");
    else text.removeAttribute("aria-invalid");
  };
  return {
    element: h("div", { class: "field" }, h("label", { class: "field-label", for: id }, "One row, as JSON"), text, error),
    readRow: () => text.value.trim(),
    clear: () => mark(""),
    markProblem: (detail) => {
      mark(detail);
      text.focus();
      return true;
    },
  };
}

function createField(feature, values) {
  const id = uniqueId("field");
  const error = h("span", { class: "field-error", id: `${id}-error` });
  const input = createInput(feature, values, { id, "aria-describedby": `${id}-error` });
  const missing = feature.nullable ? h("input", { type: "checkbox" }) : null;
  missing?.addEventListener("change", () => {
    input.disabled = missing.checked;
  });
  const label = [h("span", { class: "try-name" }, feature.name), feature.is_used ? null : h("span", { class: "muted" }, " ignored")];
  return {
    element: h(
      "div",
      { class: "field try-field", "data-feature": feature.name },
      h("label", { class: "field-label", for: id }, label),
      input,
      missing ? h("label", { class: "try-missing" }, missing, " missing") : null,
      error,
    ),
    read: () => readInput(feature, values, input, Boolean(missing?.checked)),
    focus: () => input.focus(),
    mark: (detail) => {
      setText(error, detail);
      if (detail) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    },
  };
}

function createInput(feature, values, attributes) {
  if (values?.length) {
    return h("select", { ...attributes, class: "input" }, values.map((value) => h("option", { value: JSON.stringify(value) }, String(value))));
  }
  if (feature.dtype === "bool") {
    return h("select", { ...attributes, class: "input" }, ["false", "true"].map((value) => h("option", { value }, value)));
  }
  const input = h("input", {
    ...attributes,
    class: feature.dtype === "number" ? "input number" : "input",
    type: "text",
    inputmode: feature.dtype === "number" ? "decimal" : null,
    autocomplete: "off",
    spellcheck: "false",
  });
  input.value = suggestText(feature);
  return input;
}

function readInput(feature, values, input, isMissing) {
  if (isMissing) return "null";
  return values?.length ? input.value : encodeCell(feature, input.value, false);
}
