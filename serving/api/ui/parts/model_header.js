// What a model is now, in one look: the version that answers, what an operator should know, and the rates.

import { h, setText } from "../dom.js";
import { formatP99, formatRate } from "../format.js";
import { banner } from "./banner.js";
import { createSection } from "./section.js";
import { toneMark } from "./state_mark.js";
import { timestamp } from "./timestamp.js";

const RATES = [
  ["requests", "Requests/s", (rates) => formatRate(rates.requestsPerSecond)],
  ["p99", "p99", formatP99],
  ["failed", "Failed/s", (rates) => formatRate(rates.failedPerSecond)],
  ["refused", "Refused/s", (rates) => formatRate(rates.refusedPerSecond)],
];

/**
 * Return `{element, update, updateRates}`. `update(model)` takes an entry of the live state; `choose(version)` is called
 * when the reader asks for the gates of a version.
 */
export function createModelHeader(name, choose) {
  const summary = h("div", { class: "model-summary" });
  const notices = h("div", { class: "model-notices" });
  const values = RATES.map(([id]) => h("dd", { "data-rate": id }, "–"));
  const rates = h(
    "dl",
    { class: "rates", "aria-label": "Now" },
    RATES.map(([, title], place) => h("div", { class: "rate" }, h("dt", null, title), values[place])),
  );
  const element = h(
    "header",
    { class: "model-head" },
    h("div", { class: "model-title" }, h("h1", { tabindex: "-1" }, name), summary),
    rates,
  );
  const updateSummary = createSection(summary, buildSummary);
  const updateNotices = createSection(notices, (model) => buildNotices(model, choose));
  return {
    element: h("div", null, element, notices),
    update: (model) => {
      updateSummary(model);
      updateNotices(model);
    },
    updateRates: (now) => {
      for (const [place, [, , format]] of RATES.entries()) setText(values[place], format(now));
    },
  };
}

function buildSummary(model) {
  const { active } = model;
  if (active === null) {
    return h("p", { class: "model-active" }, toneMark(model.unloaded ? "held" : "idle", model.unloaded ? "Unloaded" : "No version is active"));
  }
  const labels = Object.entries(model.labels);
  return [
    h(
      "p",
      { class: "model-active", "data-version": active.version },
      toneMark("good", "Active"),
      h("strong", { class: "model-version" }, active.version),
      h("span", { class: "muted" }, "since ", timestamp(active.activated_at), " (", timestamp(active.activated_at, "ago"), ")"),
    ),
    h(
      "p",
      { class: "chips" },
      h("span", { class: "chip" }, `engine ${active.engine}`),
      h("span", { class: "chip" }, active.environment === "own" ? "the server's own environment" : `environment ${active.environment}`),
      model.pinned === null ? null : h("span", { class: "chip chip-strong" }, `pinned to ${model.pinned}`),
      model.target === null ? null : h("span", { class: "chip chip-strong" }, `${model.target.version} is on its way`),
      labels.map(([label, version]) => h("span", { class: "chip" }, `${label} → ${version}`)),
    ),
  ];
}

/** Whether the version that failed answers by now. */
function isOver(failure, active) {
  return active !== null && active.version === failure.version && Date.parse(active.activated_at) > Date.parse(failure.at);
}

function buildNotices(model, choose) {
  const failure = model.last_failure;
  return [
    model.unloaded
      ? banner({
          tone: "held",
          title: "Unloaded by an operator",
          text: "No version of it is loaded until it is loaded again.",
        })
      : null,
    model.problem ? banner({ tone: "bad", title: "It does not do what was decided", text: model.problem }) : null,
    model.active?.note ? banner({ tone: "warn", title: "Worth knowing", text: model.active.note }) : null,
    model.warnings.map((warning) =>
      banner({ tone: "warn", title: `The gate ${warning.gate} let ${warning.version} pass with a warning`, text: warning.evidence }),
    ),
    failure && !isOver(failure, model.active)
      ? banner({
          tone: "bad",
          title: `${failure.version} was refused by ${failure.gate}`,
          text: h("span", null, failure.reason, " ", timestamp(failure.at, "ago")),
          action: h(
            "button",
            { type: "button", class: "button small", "data-key": "show-failure", onclick: () => choose(failure.version) },
            "Show its gates",
          ),
        })
      : null,
  ];
}
