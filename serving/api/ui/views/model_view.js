// One model: what answers, its versions, how a new one takes over, what happened, and what an operator can do.

import { h, setChildren } from "../dom.js";
import { createDeedPanel } from "../parts/deed_panel.js";
import { listModelDeeds, listOrphanDeeds, listRolloutDeeds } from "../parts/deed_list.js";
import { isInProgress } from "../parts/gate_list.js";
import { createModelHeader } from "../parts/model_header.js";
import { createPanel, createSection } from "../parts/section.js";
import { createPoll } from "../parts/poll.js";
import { buildRollout } from "../parts/rollout_panel.js";
import { createTimeline } from "../parts/timeline.js";
import { createTryForm } from "../parts/try_form.js";
import { createUploadPanel } from "../parts/upload_panel.js";
import { createVersionDetails } from "../parts/version_details.js";
import { createVersionList } from "../parts/version_list.js";
import { hashOf, replaceHash } from "../router.js";

const QUIET_MS = 2000;

/** @type {import("../main.js").Show} */
export function show(container, context, { name, query }) {
  const { live, api, session } = context;
  const parts = createParts(name, context, () => modelPoll.ask());
  setChildren(container, h("p", { class: "crumb" }, h("a", { href: hashOf("") }, "Models"), " / ", name), parts.element);
  let model = null;
  let rollout = null;
  let isRestored = false;

  function update() {
    if (model === null) return;
    const entry = live.models.get(name);
    const shown = entry === undefined ? model : { ...model, ...entry, rollout: model.rollout };
    parts.update(shown, rollout ?? { strategy: "swap", running: null, last: null, is_stopped: false });
  }

  async function readModel() {
    try {
      model = await api.getJson(api.pathOf("models", name));
      rollout = model.rollout ?? (await api.getJson(api.pathOf("models", name, "rollout")));
      parts.showProblem(null);
      update();
      if (!isRestored) parts.restore(query.get("version"));
      isRestored = true;
      if (model.versions.some((version) => isInProgress(version.state))) modelPoll.ask();
    } catch (problem) {
      parts.showProblem(problem);
    }
  }

  async function readRollout() {
    try {
      rollout = await api.getJson(api.pathOf("models", name, "rollout"));
      if (model !== null) model.rollout = rollout;
      update();
    } catch (problem) {
      parts.showProblem(problem);
    }
  }

  const modelPoll = createPoll(readModel);
  const rolloutPoll = createPoll(readRollout);
  let before = "";
  const endings = [
    live.subscribe(["model"], (_, entry) => {
      if (entry.name !== name) return;
      const { rollout: summary, ...rest } = entry;
      const key = JSON.stringify(rest);
      if (key === before && summary !== null) rolloutPoll.ask();
      else modelPoll.ask();
      before = key;
      update();
    }),
    live.subscribe(["service"], modelPoll.ask), // the store was listed: there may be versions that nothing has happened to
    live.subscribe(["removed"], (_, gone) => {
      if (gone.name === name) modelPoll.ask();
    }),
    live.subscribe(["history"], (_, entry) => {
      if (entry.model !== name) return;
      parts.timeline.add(entry);
      modelPoll.ask();
    }),
    live.subscribe(["traffic"], () => {
      parts.updateRates(live);
      if (rollout?.running) rolloutPoll.ask();
    }),
    live.subscribe(["start", "gap"], (kind) => {
      modelPoll.ask();
      if (kind === "gap") parts.timeline.reload();
      else parts.timeline.load();
    }),
    session.subscribe(update),
    modelPoll.stop,
    rolloutPoll.stop,
    parts.dispose,
  ];
  const quiet = setInterval(() => parts.updateRates(live), QUIET_MS); // rates fall also while nothing is asked
  modelPoll.ask();
  parts.timeline.load();
  parts.updateRates(live);
  return () => {
    clearInterval(quiet);
    for (const end of endings) end();
  };
}

function createParts(name, context, onDone) {
  const { api, session, announce } = context;
  const tools = { api, session, announce, onDone };
  const problem = h("p", { class: "outcome outcome-bad", hidden: true });
  const versions = createVersionList({
    createDetails: (version) => createVersionDetails(version, tools),
    onChoose: (version) => replaceHash(hashOf("models", name, { version })),
  });
  const header = createModelHeader(name, versions.choose);
  const operate = createOperate(tools);
  const rolloutBox = h("div", { class: "rollout" });
  const showRollout = createSection(rolloutBox, buildRollout);
  const rolloutDeeds = createDeedPanel(tools);
  const tryForm = createTryForm(name, context);
  const timeline = createTimeline(name, api);
  const upload = createUploadPanel(name, context);
  const rolloutPanel = createPanel("rollout", "Rollout", rolloutBox, rolloutDeeds.element);
  return {
    element: h(
      "div",
      { class: "model" },
      header.element,
      problem,
      h(
        "div",
        { class: "model-grid" },
        h(
          "div",
          { class: "model-main" },
          rolloutPanel,
          createPanel("versions", "Versions", versions.element),
          createPanel("try", "Try it", tryForm.element),
        ),
        h(
          "div",
          { class: "model-side" },
          createPanel("operate", "Operate", operate.element),
          createPanel("publish", "Publish a version", upload.element),
          createPanel("timeline", "What happened", timeline.element),
        ),
      ),
    ),
    timeline,
    restore: versions.restore,
    update: (model, rollout) => {
      header.update(model);
      versions.update(model);
      operate.update(model);
      rolloutPanel.hidden = rollout.running === null && rollout.last === null && !rollout.is_stopped;
      showRollout({ rollout, width: measure(rolloutBox) });
      rolloutDeeds.element.hidden = !session.has("admin");
      rolloutDeeds.update(listRolloutDeeds(model.name, rollout));
      tryForm.update(model);
      upload.update(model.versions.map((version) => version.version));
    },
    updateRates: (live) => {
      header.updateRates(live.rates(name));
      versions.updateRates((version) => live.rates(name, version));
    },
    showProblem: (found) => {
      problem.hidden = found === null;
      if (found !== null) problem.textContent = found.status === 404 ? `There is no model ${name} now.` : found.detail || found.message;
    },
    dispose: () => {
      upload.dispose();
      timeline.dispose();
    },
  };
}

/** The width for a curve: in steps, so that it is not drawn anew for every pixel of a moving window. */
function measure(element) {
  return Math.min(Math.max(Math.floor(element.clientWidth / 20) * 20, 240), 860);
}

function createOperate(tools) {
  const { session } = tools;
  const deeds = createDeedPanel(tools);
  const closed = h("div", { class: "muted" });
  const showClosed = createSection(closed, ({ why, canSignIn }) => [
    h("p", null, why),
    canSignIn
      ? h("button", { type: "button", class: "button", "data-key": "sign-in", onclick: () => session.requestSignIn() }, "Sign in")
      : null,
  ]);
  return {
    element: h("div", null, closed, deeds.element),
    update: (model) => {
      const why = session.whyNot("admin");
      closed.hidden = why === null;
      deeds.element.hidden = why !== null;
      if (why !== null) showClosed({ why, canSignIn: session.canSignIn && session.state?.ui === "admin" });
      else deeds.update([...listModelDeeds(model), ...listOrphanDeeds(model)]);
    },
  };
}
