// All models: which version answers, what comes, how much is asked, what failed last.

import { h, oncePerFrame, setAttributes, setChildren, setText } from "../dom.js";
import { formatCount, formatNumber, formatPercent, formatRate, formatSeconds, NOTHING } from "../format.js";
import { banner } from "../parts/banner.js";
import { keepServiceBanners } from "../parts/service_banners.js";
import { SortedTable } from "../parts/sorted_table.js";
import { describeState, setToneMark, stateMark, toneMark, toneShape } from "../parts/state_mark.js";
import { timestamp } from "../parts/timestamp.js";
import { createUploadPanel } from "../parts/upload_panel.js";
import { hashOf, replaceHash } from "../router.js";

const QUIET_MS = 2_000;

/** @type {import("../main.js").Show} */
export function show(container, context, { query }) {
  const { live } = context;
  let filter = query.get("filter") ?? "";
  /** @type {Map<string, {entry: import("../live_state.js").ModelEntry, rates: import("../traffic_rates.js").Rates}>} */
  const items = new Map();
  const table = new SortedTable({
    caption: "Models",
    columns: COLUMNS,
    keyOf: ({ entry }) => entry.name,
    sort: query.get("sort") ?? "name",
    onSort: remember,
    className: "models",
  });

  const box = h("input", {
    type: "search",
    class: "input filter",
    value: filter,
    placeholder: "Filter by name, version, label, state…",
    "aria-label": "Filter models",
    "aria-keyshortcuts": "/",
    autocomplete: "off",
    spellcheck: "false",
  });
  const shown = h("span", { class: "muted shown-count", role: "status" });
  const facts = makeFacts();
  const banners = h("div", { class: "banners" });
  const empty = h("div", { class: "empty" });
  const upload = createUploadPanel(null, context);
  setChildren(
    container,
    h("div", { class: "view-head" }, h("h1", null, "Models"), facts.element),
    banners,
    h("div", { class: "toolbar" }, box, shown),
    table.element,
    empty,
    upload.element,
  );
  box.addEventListener("input", () => {
    filter = box.value;
    remember();
    update({ isSettled: true });
  });
  const focusFilter = (event) => {
    const isTyping = event.target.closest?.("input, textarea, select, dialog");
    if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    box.focus();
  };
  document.addEventListener("keydown", focusFilter);

  function remember() {
    replaceHash(hashOf("", null, { filter, sort: table.sort === "name" ? "" : table.sort }));
  }

  function update({ isSettled = false } = {}) {
    items.clear();
    let hidden = 0;
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    let perSecond = null;
    for (const [name, entry] of live.models) {
      const rates = live.rates(name);
      if (rates.requestsPerSecond !== null) perSecond = (perSecond ?? 0) + rates.requestsPerSecond;
      if (matches(entry, words)) items.set(name, { entry, rates });
      else hidden += 1;
    }
    const isLiveOrder = ["requests", "p99", "errors"].includes(table.sort.replace("-", ""));
    table.update(items.values(), { keepOrder: !isSettled && isLiveOrder && table.isInUse });
    setText(shown, hidden ? `${formatNumber(items.size)} of ${formatCount(live.models.size, "model")}` : "");
    table.element.hidden = !items.size;
    box.parentElement.hidden = live.isKnown && live.models.size === 0;
    showEmpty(empty, live, words.length > 0 && hidden > 0 && !items.size);
    facts.update(live, perSecond);
  }

  const updateSoon = oncePerFrame(update);
  const endings = [
    live.subscribe(["start", "model", "removed", "service", "workers", "traffic"], updateSoon),
    keepServiceBanners(banners, live),
    upload.dispose,
  ];
  const quiet = setInterval(updateSoon, QUIET_MS); // rates fall also while nothing is asked and so nothing is sent
  update({ isSettled: true });
  return () => {
    for (const end of endings) end();
    updateSoon.cancel();
    clearInterval(quiet);
    document.removeEventListener("keydown", focusFilter);
  };
}

/** Says whether every word is in what the row shows. */
function matches(entry, words) {
  if (!words.length) return true;
  const { active, target, rollout, last_failure: failure } = entry;
  const text = [
    entry.name,
    active ? `${active.version} ${active.engine} active` : describeAbsence(entry)[1],
    target && isComing(entry) && `${target.version} ${target.state} ${describeState(target.state)[1]} coming`,
    rollout && `${rollout.phase} ${rollout.is_held ? "held" : ""} ${rollout.is_stopped ? "stopped" : ""}`,
    entry.pinned && `pinned ${entry.pinned}`,
    ...Object.entries(entry.labels).flat(),
    entry.quarantined.length && "quarantined",
    failure && `failed failure ${failure.version} ${failure.gate} ${failure.reason}`,
    entry.problem && `problem ${entry.problem}`,
  ];
  const haystack = text.filter(Boolean).join(" ").toLowerCase();
  return words.every((word) => haystack.includes(word));
}

function isComing({ active, target }) {
  return Boolean(target) && target.version !== active?.version;
}

const entryOf = ({ entry }) => entry;

/** @type {import("../parts/sorted_table.js").Column<{entry: import("../live_state.js").ModelEntry, rates: import("../traffic_rates.js").Rates}>[]} */
const COLUMNS = [
  { key: "name", title: "Model", isHead: true, sortBy: ({ entry }) => entry.name, watch: entryOf, update: updateName },
  { key: "active", title: "Active version", sortBy: ({ entry }) => entry.active?.version, watch: entryOf, update: updateActive },
  { key: "engine", title: "Engine", sortBy: ({ entry }) => entry.active?.engine, watch: entryOf, update: updateEngine },
  { key: "coming", title: "Coming", sortBy: sortByComing, watch: entryOf, update: updateComing },
  {
    key: "requests",
    title: "Requests/s",
    isNumber: true,
    hint: "Over the last ten seconds",
    sortBy: ({ rates }) => rates.requestsPerSecond,
    watch: describeRequests,
    update: (cell, item) => setNumber(cell, describeRequests(item)),
  },
  {
    key: "p99",
    title: "p99",
    isNumber: true,
    hint: "99 of 100 requests are answered within this time, over the last ten seconds",
    sortBy: ({ rates }) => rates.p99Seconds,
    watch: describeP99,
    update: (cell, item) => setNumber(cell, describeP99(item)),
  },
  {
    key: "errors",
    title: "Errors/s",
    isNumber: true,
    hint: "Answers with a 5xx status, over the last ten seconds",
    sortBy: ({ rates }) => rates.failedPerSecond,
    watch: ({ rates }) => `${formatRate(rates.failedPerSecond)} ${formatRate(rates.refusedPerSecond)}`,
    update: updateErrors,
  },
  { key: "failure", title: "Last failure", sortBy: sortByFailure, watch: entryOf, update: updateFailure },
];

function sortByComing({ entry }) {
  return isComing(entry) || entry.rollout ? `${entry.rollout?.phase ?? ""} ${entry.target?.state}` : null;
}

function sortByFailure({ entry }) {
  return entry.last_failure ? -new Date(entry.last_failure.at) : null;
}

function describeRequests({ rates }) {
  return formatRate(rates.requestsPerSecond);
}

function describeP99({ rates }) {
  return rates.p99Seconds === Infinity ? "> 30 s" : formatSeconds(rates.p99Seconds);
}

function updateName(cell, { entry }) {
  const { name, pinned, labels, problem, warnings, quarantined, active } = entry;
  const note = problem ?? active?.note ?? null;
  const chips = [
    pinned && h("span", { class: "chip" }, toneShape("held"), `Pinned to ${pinned}`),
    ...Object.entries(labels).map(([label, version]) => h("span", { class: "chip" }, `${label} → ${version}`)),
    quarantined.length > 0 && h("span", { class: "chip" }, toneShape("held"), `${quarantined.length} quarantined`),
    warnings.length > 0 &&
      h(
        "span",
        { class: "chip", title: warnings.map((one) => `${one.gate}: ${one.evidence}`).join("\n") },
        toneShape("warn"),
        formatCount(warnings.length, "warning"),
      ),
  ].filter(Boolean);
  const link = cell.querySelector("a") ?? h("a", { href: hashOf("models", name), class: "model-link" }, name);
  if (!link.isConnected) cell.prepend(link); // it stays, because it may have the focus
  while (link.nextSibling) link.nextSibling.remove();
  if (chips.length) cell.append(h("span", { class: "row-chips" }, chips));
  if (note) cell.append(h("span", { class: "row-note" }, toneShape("warn"), h("span", null, note)));
}

function updateActive(cell, { entry }) {
  const { active } = entry;
  if (!active) {
    setChildren(cell, toneMark(...describeAbsence(entry)));
    return;
  }
  const shape = h("span", { class: "tone-good" }, toneShape("good"));
  setChildren(
    cell,
    h("span", { class: "mark" }, shape, h("span", { class: "version" }, active.version)),
    h("span", { class: "visually-hidden" }, " active"),
  );
}

function describeAbsence(entry) {
  if (entry.unloaded) return ["held", "Unloaded"];
  return isComing(entry) ? ["idle", "None yet"] : ["bad", "Nothing active"];
}

function updateEngine(cell, { entry: { active } }) {
  const environment = active && active.environment !== "own" ? ` in ${active.environment}` : "";
  setText(cell, active ? `${active.engine}${environment}` : NOTHING);
}

function updateComing(cell, { entry }) {
  const { target, rollout } = entry;
  if (!isComing(entry) && !rollout) {
    setChildren(cell, h("span", { class: "muted" }, NOTHING));
    return;
  }
  if (rollout && !rollout.version) {
    setChildren(cell, toneMark("warn", "Rollouts stopped"));
    return;
  }
  const state = rollout?.phase ?? target?.state ?? "";
  setChildren(
    cell,
    h(
      "span",
      { class: "coming" },
      h("span", { class: "version" }, rollout?.version ?? target?.version),
      stateMark(state),
    ),
    rollout &&
      h(
        "span",
        { class: "share" },
        shareBar(rollout.share),
        formatPercent(rollout.share),
        rollout.is_held && toneMark("held", "Held"),
      ),
  );
}

function shareBar(share) {
  const filled = h("span", { style: { width: `${Math.min(share, 100)}%` } });
  return h("span", { class: "share-bar", "aria-hidden": "true" }, filled);
}

function updateErrors(cell, { rates: { failedPerSecond: failed, refusedPerSecond: refused } }) {
  setNumber(cell, formatRate(failed));
  cell.classList.toggle("is-bad", failed > 0);
  const note = `Beside these, ${formatRate(refused)}/s were refused with a 4xx status: the client’s fault`;
  setAttributes(cell, { title: refused > 0 ? note : null });
}

function updateFailure(cell, { entry: { last_failure: failure } }) {
  if (!failure) {
    setChildren(cell, h("span", { class: "muted" }, NOTHING));
    return;
  }
  const { version, gate, reason, at } = failure;
  setChildren(
    cell,
    h(
      "span",
      { class: "failure-head" },
      toneShape("bad"),
      h("span", { class: "version" }, version),
      ` ${gate}`,
      h("span", { class: "muted" }, " · ", timestamp(at, "ago")),
    ),
    h("span", { class: "clamped", title: reason }, reason),
  );
}

function setNumber(cell, text) {
  setText(cell, text);
  cell.classList.toggle("muted", text === NOTHING || text === "0");
}

function makeFacts() {
  const ready = toneMark("busy", "Connecting");
  const values = ["answering", "requests", "workers", "generation"].map((key) => h("span", { class: `head-fact fact-${key}` }));
  const [answering, requests, workers, generation] = values;
  return {
    element: h("div", { class: "head-facts" }, ready, values),
    update(live, perSecond) {
      if (!live.service) return;
      setToneMark(ready, live.service.ready ? "good" : "bad", live.service.ready ? "Ready" : "Not ready");
      const active = [...live.models.values()].filter((model) => model.active).length;
      setText(answering, `${formatNumber(active)} of ${formatCount(live.models.size, "model")} active`);
      setText(requests, perSecond === null ? "" : `${formatRate(perSecond)} requests/s`);
      const serving = live.workers.filter((worker) => worker.state === "serving").length;
      setText(workers, live.workers.length ? `${serving} of ${formatCount(live.workers.length, "worker")} serve` : "");
      setText(generation, `Generation ${formatNumber(live.service.generation)}`);
    },
  };
}

function showEmpty(element, live, isFiltered) {
  const kind = !live.isKnown ? "unknown" : isFiltered ? "filtered" : live.models.size ? "" : "empty";
  if (element.dataset.kind === kind) return;
  element.dataset.kind = kind;
  const texts = { unknown: "Waiting for the server…", filtered: "No model matches the filter." };
  if (kind !== "empty") {
    setChildren(element, kind && h("p", { class: "muted" }, texts[kind]));
    return;
  }
  setChildren(
    element,
    banner({
      tone: "idle",
      title: "The store is empty. Drop a first model file into it.",
      text: "A file at the top of the store, such as iris.joblib, becomes the model “iris”. Within a second it answers, or this page says why it does not. Or have a look with models that are ready-made, in the directory where the server runs:",
      command: "serving demo",
    }),
  );
}
