// Where models come from and what is remembered: the store, its problems, the state database, and the sandbox of hosts.

import { h, oncePerFrame, setChildren } from "../dom.js";
import { formatCount } from "../format.js";
import { commandLine, servingCommand } from "../parts/command_line.js";
import { toneMark, toneShape } from "../parts/state_mark.js";
import { timestamp } from "../parts/timestamp.js";
import { hashOf } from "../router.js";

/** In the order in which they are applied to a host: serving/domain/sandbox.py. */
const LAYERS = {
  environment: "Only the variables it needs",
  descriptors: "No open files of the server",
  limits: "Bounded memory, processor time and files",
  no_new_privs: "No new privileges",
  network_namespace: "A network of its own, without anything in it",
  capabilities: "No capabilities",
  tasks: "A bounded number of processes",
  landlock: "No files but its own",
  seccomp: "Only the system calls it needs",
};
const OPTIONAL_LAYERS = new Set(["network_namespace"]);

/** @type {import("../main.js").Show} */
export function show(container, { live }) {
  const body = h("div", { class: "cards" });
  setChildren(container, h("h1", null, "Store"), body);
  let shown = "";
  const update = () => {
    const { service } = live;
    const quarantined = [...live.models.values()].flatMap((model) => model.quarantined.map((one) => ({ model: model.name, ...one })));
    const kept = [...live.models.values()].filter((model) => model.active?.note);
    const text = JSON.stringify([service && { ...service, generation: 0 }, quarantined, kept]);
    if (text === shown) return;
    shown = text;
    if (!service) setChildren(body, h("p", { class: "muted" }, "Waiting for the server…"));
    else setChildren(body, ...describe(service, quarantined, kept));
  };
  const updateSoon = oncePerFrame(update);
  const end = live.subscribe(["start", "service", "model", "removed"], updateSoon);
  update();
  return () => {
    end();
    updateSoon.cancel();
  };
}

function describe({ store, state, sandbox }, quarantined, kept) {
  return [
    card("Store", [
      h("dl", { class: "pairs" },
        pair("Listing", store.is_available ? toneMark("good", "Available") : toneMark("bad", "Not available")),
        store.reason && pair("Reason", store.reason),
        pair("Changes are noticed", store.watch === "events" ? "at once, by events of the file system" : "by looking again and again (poll)"),
        pair("Looked at last", timestamp(store.listed_at, "ago")),
      ),
      !store.is_available && [
        h("p", null, "What is active goes on answering. Check that the directory exists and that the server’s user may read it; then have the server look at once:"),
        commandLine(servingCommand("refresh")),
      ],
    ]),
    card("Problems in the store", [
      store.problems.length
        ? h("ul", { class: "problem-list" }, store.problems.map(describeProblem))
        : h("p", { class: "muted" }, "None: everything in the store is a version, or on its way to be one."),
    ]),
    card("State database", [
      h("dl", { class: "pairs" },
        pair("Decisions", state.is_held ? toneMark("held", "Held") : state.problem ? toneMark("warn", "Problem") : toneMark("good", "Kept")),
        state.problem && pair("Problem", state.problem),
      ),
      state.is_held
        ? [
            h("p", null, "Pins, quarantines, labels and unloaded models may be lost. So only what was active before answers, and what is pinned from now on. Set again what is needed, then accept the loss:"),
            commandLine(servingCommand("accept-state-loss")),
          ]
        : h("p", { class: "muted" }, "Pins, labels, quarantines, verdicts and the history are written here and survive a restart."),
    ]),
    card("Kept aside", [
      quarantined.length || kept.length
        ? h("ul", { class: "problem-list" }, quarantined.map(describeQuarantine), kept.map(describeKept))
        : h("p", { class: "muted" }, "Nothing is in quarantine, and every active version is in the store as it was taken."),
    ]),
    card("Sandbox of every host", describeSandbox(sandbox)),
  ];
}

function card(title, parts) {
  return h("section", { class: "card" }, h("h2", null, title), parts);
}

function pair(term, value) {
  return [h("dt", null, term), h("dd", null, value)];
}

function describeProblem(problem) {
  return h("li", null, toneShape("warn"), h("p", null, problem));
}

function describeQuarantine({ model, version, path }) {
  return h(
    "li",
    null,
    toneShape("held"),
    h(
      "div",
      null,
      h("p", null, h("a", { href: hashOf("models", model) }, `${model} ${version}`), ` is in quarantine${path ? `: ${path}` : "; the store does not hold these bytes"}`),
      commandLine(servingCommand("release", model, version)),
    ),
  );
}

function describeKept({ name, active }) {
  return h("li", null, toneShape("warn"), h("p", null, h("a", { href: hashOf("models", name) }, `${name} ${active.version}`), `: ${active.note}`));
}

function describeSandbox(sandbox) {
  if (!sandbox) return [h("p", { class: "muted" }, "No version is loaded that was evaluated in a host.")];
  const missing = Object.entries(sandbox.missing);
  const lacking = missing.filter(([name]) => !OPTIONAL_LAYERS.has(name)).length;
  const names = [...new Set([...Object.keys(LAYERS), ...sandbox.active, ...Object.keys(sandbox.missing)])];
  return [
    lacking ? toneMark("warn", `${formatCount(lacking, "layer")} missing`) : toneMark("good", "Whole"),
    h("p", { class: "muted" }, "These layers held the host of every version that is loaded."),
    h("ul", { class: "sandbox-layers" }, names.map((name) => describeLayer(name, sandbox)).filter(Boolean)),
  ];
}

function describeLayer(name, { active, missing }) {
  const isActive = active.includes(name);
  if (!isActive && !(name in missing)) return null;
  const isOptional = OPTIONAL_LAYERS.has(name);
  const mark = isActive ? toneMark("good", name) : toneMark(isOptional ? "idle" : "warn", `${name} is missing${isOptional ? " (optional)" : ""}`);
  return h("li", null, mark, h("p", { class: "layer-why" }, isActive ? LAYERS[name] : `${LAYERS[name] ?? ""}: ${missing[name]}`));
}
