// Deeds on the page: for each its button, what it does and the command line beside it; below, how the last one went.

import { h } from "../dom.js";
import { commandLine } from "./command_line.js";
import { confirmDeed } from "./deed_dialog.js";
import { createSection } from "./section.js";

/**
 * Return `{element, update, run}`: `update(deeds)` shows what is possible now, `run(deed, button)` does one that has a
 * form of its own. `tools` are `{api, announce, onDone}`; `onDone()` is called after each success.
 */
export function createDeedPanel(tools) {
  const list = h("div", { class: "deeds" });
  const outcome = h("p", { class: "outcome", hidden: true });
  const run = (deed, button) => runDeed(deed, button, outcome, tools);
  const update = createSection(list, (deeds) => deeds.map((deed) => createRow(deed, run)));
  return { element: h("div", { class: "deed-panel" }, list, outcome), update, run };
}

function createRow(deed, run) {
  const button = h(
    "button",
    { type: "button", class: deed.isDestructive ? "button danger" : "button", "data-key": `deed-${deed.id}` },
    deed.label,
  );
  button.addEventListener("click", () => run(deed, button));
  return h(
    "div",
    { class: "deed", "data-deed": deed.id },
    button,
    h("p", { class: "deed-about" }, deed.about),
    commandLine(deed.command),
  );
}

/** Do a deed: ask where it has to be asked, send its call, and say in `outcome` and aloud how it went. */
async function runDeed(deed, button, outcome, { api, announce, onDone }) {
  if (button.getAttribute("aria-disabled") === "true") return;
  if (deed.confirm !== undefined && !(await confirmDeed(deed))) return;
  button.setAttribute("aria-disabled", "true");
  showOutcome(outcome, "busy", `${deed.label}: working…`);
  try {
    await api.send(deed.method, deed.path, deed.body);
    showOutcome(outcome, "good", `Done: ${deed.done}.`);
    announce(deed.done);
    onDone();
  } catch (problem) {
    showOutcome(outcome, "bad", `Refused: ${explainProblem(problem)}`);
    announce(`refused: ${explainProblem(problem)}`);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

/** Return why a call failed, in the words of the server where it has answered. */
export function explainProblem(problem) {
  return problem.body?.error || problem.detail || problem.title || String(problem.message ?? problem);
}

/** Show how something went; `tone` is good, busy or bad. */
export function showOutcome(element, tone, text) {
  element.hidden = false;
  element.className = `outcome outcome-${tone}`;
  element.textContent = text;
}
