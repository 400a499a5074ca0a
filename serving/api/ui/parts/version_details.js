// Everything that is known of one version: its gates, proof, contract and surroundings, and the deeds about it.

import { h, setChildren } from "../dom.js";
import { commandLine } from "./command_line.js";
import { listVersionDeeds, canChoose, setLabel } from "./deed_list.js";
import { createDeedPanel } from "./deed_panel.js";
import { createGateList, isInProgress } from "./gate_list.js";
import { createProof } from "./proof_facts.js";
import { createSection } from "./section.js";
import { joinWords } from "./shell_words.js";
import { createSignature } from "./signature_table.js";
import { timestamp } from "./timestamp.js";
import { createVersionFacts } from "./version_facts.js";

/** Return `{element, update(model, version)}` for the version with this name. `tools` are `{api, announce, session}`. */
export function createVersionDetails(name, tools) {
  const deeds = createVersionDeeds(name, tools);
  const parts = {
    head: h("div", { class: "version-head" }),
    gates: h("div"),
    proof: h("div"),
    signature: h("div"),
    facts: h("div"),
  };
  const updates = [
    createSection(parts.head, buildHead),
    createSection(parts.gates, buildGates),
    createSection(parts.proof, (compilation) => createProof(compilation)),
    createSection(parts.signature, buildSignature),
    createSection(parts.facts, (version) => createVersionFacts(version)),
  ];
  const element = h(
    "div",
    { class: "version-details" },
    parts.head,
    deeds.element,
    createPart("Gates", parts.gates),
    createPart("Proof", parts.proof),
    createPart("Contract", parts.signature),
    createPart("Where it runs", parts.facts),
  );
  const update = (model, version) => {
    deeds.update(model, version);
    const { state, reason, retry_at: retryAt, gates, compilation, signature } = version;
    const shown = [
      { state, reason, retryAt },
      { state, gates },
      compilation,
      { signature, known: compilation?.guard.known ?? {} },
      pickFacts(version),
    ];
    for (const [place, data] of shown.entries()) updates[place](data);
  };
  return { element, update };
}

function createPart(title, content) {
  return h("section", { class: "version-part" }, h("h3", null, title), content);
}

function pickFacts(version) {
  const { digest, engine, memory_bytes, environment, environment_reason, needs, libraries, sandbox } = version;
  return { digest, engine, memory_bytes, environment, environment_reason, needs, libraries, sandbox };
}

function buildHead({ reason, retryAt }) {
  return [
    reason === null ? null : h("p", { class: "version-why" }, reason),
    retryAt === null ? null : h("p", null, "It is tried again at ", timestamp(retryAt), "."),
  ];
}

function buildGates({ state, gates }) {
  return createGateList(gates, isInProgress(state));
}

function buildSignature({ signature, known }) {
  if (signature === null) return h("p", { class: "muted" }, "Not known: it has not been loaded yet.");
  return createSignature(signature, known);
}

/** The deeds about one version, and the form that gives it a label. */
function createVersionDeeds(name, tools) {
  const panel = createDeedPanel(tools);
  const input = h("input", { type: "text", class: "input", required: true, maxlength: "100", autocomplete: "off", spellcheck: "false" });
  const command = h("div", { class: "label-command" });
  const button = h("button", { type: "submit", class: "button" }, "Label");
  const form = h(
    "form",
    { class: "label-form deed", "data-deed": "label" },
    h("label", { class: "field" }, h("span", null, `Let a label name ${name}`), input),
    button,
    command,
  );
  let model = null;
  const showCommand = () => {
    const text = joinWords(["serving", "label", model.name, input.value.trim() || "LABEL", name]);
    if (command.firstChild?.firstChild.textContent !== text) setChildren(command, commandLine(text));
  };
  input.addEventListener("input", showCommand);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await panel.run(setLabel(model, input.value.trim(), name), button);
  });
  const element = h("div", { class: "version-deeds" }, panel.element, form);
  return {
    element,
    update: (next, version) => {
      model = next;
      element.hidden = !tools.session.has("admin");
      if (element.hidden) return;
      panel.update(listVersionDeeds(next, version));
      form.hidden = !canChoose(version);
      showCommand();
    },
  };
}
