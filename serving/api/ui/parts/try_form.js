// Asks a model about one row: a form made from its signature, the answer with its version and time, and the curl call.

import { h, setChildren, setText, uniqueId } from "../dom.js";
import { formatSeconds } from "../format.js";
import { commandLine } from "./command_line.js";
import { explainProblem } from "./deed_panel.js";
import { quoteWord } from "./shell_words.js";
import { createFields, createJsonField } from "./try_fields.js";
import { encodeBody, needsJson } from "./try_row.js";
import { toneMark } from "./state_mark.js";

/** Return `{element, update}`; `update(model)` takes `GET /models/NAME`. `context` is that of the views. */
export function createTryForm(name, context) {
  const { api, session, announce } = context;
  const target = createSelect("Ask");
  const method = createSelect("Method");
  const fieldsBox = h("div");
  const curlBox = h("div", { class: "try-curl" });
  const answer = h("div", { class: "try-answer", hidden: true });
  const swap = h("button", { type: "button", class: "button quiet small" }, "Type the row as JSON");
  const submit = h("button", { type: "submit", class: "button primary" }, "Ask the model");
  const closed = h("p", { class: "muted", hidden: true });
  const form = h(
    "form",
    { class: "try-form" },
    h("div", { class: "try-options" }, target.element, method.element),
    fieldsBox,
    h("div", { class: "try-buttons" }, submit, swap),
    curlBox,
    answer,
  );
  let model = null;
  let shown = "";
  let fields = null;
  let isJson = false;

  function build() {
    const version = pickVersion(model, target.value);
    const signature = version?.signature ?? model.signature;
    const known = version?.compilation?.guard.known ?? {};
    form.hidden = signature === null;
    closed.hidden = signature !== null;
    setText(closed, "A row can be tried as soon as a version is loaded.");
    const key = JSON.stringify([signature, known, isJson]);
    if (signature === null || key === shown) return;
    shown = key;
    method.fill(signature.methods.map((one) => [one, one]));
    const isOnlyJson = needsJson(signature);
    fields = isJson || isOnlyJson ? createJsonField(signature, known) : createFields(signature, known);
    swap.hidden = isOnlyJson;
    setText(swap, isJson ? "Type field by field" : "Type the row as JSON");
    setChildren(fieldsBox, fields.element);
    showCall();
  }

  function showCall() {
    if (fields === null) return;
    setChildren(curlBox, commandLine(describeCall(api.urlOf(pathOf()), encodeBody(fields.readRow(), method.value), session)));
  }

  function pathOf() {
    const [kind, which] = splitTarget(target.value);
    return kind === "active" ? api.pathOf("models", name, "predict") : api.pathOf("models", name, kind, which, "predict");
  }

  async function ask() {
    const body = encodeBody(fields.readRow(), method.value);
    fields.clear();
    submit.setAttribute("aria-disabled", "true");
    const began = performance.now();
    try {
      const content = new Blob([body]);
      const told = await api.send("POST", pathOf(), content, { headers: { "Content-Type": "application/json" } });
      showAnswer(told, (performance.now() - began) / 1000);
    } catch (problem) {
      showRefusal(problem);
    } finally {
      submit.removeAttribute("aria-disabled");
    }
  }

  function showAnswer(told, seconds) {
    const text = JSON.stringify(told.prediction, null, 1).replaceAll(/\n\s*/g, " ");
    const said = `Version ${told.version} answered in ${formatSeconds(seconds)}`;
    answer.hidden = false;
    answer.dataset.version = told.version;
    setChildren(
      answer,
      h("p", { class: "try-said" }, toneMark("good", said), h("span", { class: "muted" }, " with the way there and back")),
      h("output", { class: "try-value" }, text),
    );
    announce(`${said}: ${text.slice(0, 200)}`);
  }

  function showRefusal(problem) {
    const detail = explainProblem(problem);
    answer.hidden = false;
    delete answer.dataset.version;
    setChildren(answer, h("p", { class: "try-said" }, toneMark("bad", problem.title || "Refused")), h("p", { class: "try-problem" }, detail));
    if (problem.status === 401 || problem.status === 403) answer.append(h("p", null, session.whyNot("predict") ?? ""));
    if (problem.status === 422 || problem.status === 400) fields.markProblem(detail);
    announce(`refused: ${detail}`);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (submit.getAttribute("aria-disabled") !== "true") ask();
  });
  form.addEventListener("input", showCall);
  form.addEventListener("change", showCall);
  target.select.addEventListener("change", build);
  swap.addEventListener("click", () => {
    isJson = !isJson;
    build();
  });
  return {
    element: h("div", null, closed, form),
    update: (next) => {
      model = next;
      target.fill(listTargets(next));
      build();
    },
  };
}

function createSelect(title) {
  const id = uniqueId("try");
  const select = h("select", { class: "input", id });
  let shown = "";
  return {
    element: h("div", { class: "field" }, h("label", { class: "field-label", for: id }, title), select),
    select,
    get value() {
      return select.value;
    },
    fill: (options) => {
      const key = JSON.stringify(options);
      if (key === shown) return;
      shown = key;
      const before = select.value;
      setChildren(select, options.map(([value, text]) => h("option", { value }, text)));
      if (options.some(([value]) => value === before)) select.value = before;
    },
  };
}

function listTargets(model) {
  const active = model.active === null ? "the active version" : `the active version, ${model.active.version}`;
  const loaded = model.versions.filter((version) => version.is_loaded);
  return [
    ["active", active],
    ...Object.entries(model.labels).map(([label, version]) => [`labels/${label}`, `label ${label}, now ${version}`]),
    ...loaded.map((version) => [`versions/${version.version}`, `version ${version.version}`]),
  ];
}

function splitTarget(value) {
  return value.split(/\/(.*)/s);
}

function pickVersion(model, value) {
  const [kind, which] = splitTarget(value || "active");
  const name = kind === "active" ? model.active?.version : kind === "labels" ? model.labels[which] : which;
  return model.versions.find((version) => version.version === name);
}

function describeCall(url, body, session) {
  const needsToken = session.state?.needs.includes("predict");
  const token = needsToken ? ' -H "Authorization: Bearer $TOKEN"' : "";
  return `curl -s ${quoteWord(url)}${token} -H 'Content-Type: application/json' -d ${quoteWord(body)}`;
}
