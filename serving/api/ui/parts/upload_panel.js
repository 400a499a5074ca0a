// Publishes a file as a version: it is dropped or chosen, sent with its progress, and goes through the gates in sight.
// The view of one model shows it with that model's name, the view of all models asks for the name.

import { h, setChildren, setText, uniqueId } from "../dom.js";
import { formatBytes } from "../format.js";
import { createGateList } from "./gate_list.js";
import { quoteWord } from "./shell_words.js";
import { commandLine } from "./command_line.js";
import { toneMark } from "./state_mark.js";
import { timestamp } from "./timestamp.js";
import { nameArtefact, sendFile } from "./upload_call.js";

const STATES = {
  receiving: ["busy", "arriving"],
  checking: ["busy", "at the gates"],
  published: ["good", "published"],
  refused: ["bad", "refused"],
  failed: ["warn", "failed"],
};

/**
 * Return `{element, update, dispose}`. `model` is the name of a model, null to ask for one; `update(names)` takes the
 * names of the versions that there are.
 */
export function createUploadPanel(model, context) {
  const { live, session, announce } = context;
  const id = uniqueId("upload");
  const chooser = h("input", { type: "file", hidden: true });
  const choose = h("button", { type: "button", class: "button" }, "Choose a file");
  const drop = h("div", { class: "drop" }, h("p", null, "Drop a model file here, or "), choose, chooser);
  const form = createNameForm(id, model);
  const closed = h("div", { class: "drop-closed muted" });
  const progress = h("div", { class: "upload-progress", hidden: true });
  const list = h("ul", { class: "uploads" });
  const element = h("div", { class: "upload" }, closed, drop, form.element, progress, list);
  const rows = new Map();
  let file = null;
  let isSending = false;
  let versions = [];

  function take(chosen) {
    if (!chosen || drop.hidden) return;
    file = chosen;
    form.show(chosen, suggestVersion(versions));
  }

  async function publish(name, version, isBreaking) {
    form.hide();
    const bar = h("progress", { max: "1", "aria-label": "Sent" });
    const text = h("p", null, `Sending ${file.name}`);
    setChildren(progress, text, bar);
    progress.hidden = false;
    isSending = true;
    showSession();
    const outcome = await sendFile(context.api, { model: name, version, file, isBreaking }, (sent, all) => {
      bar.value = all ? sent / all : 0;
      setText(text, sent < all ? `Sending ${file.name}: ${formatBytes(sent)} of ${formatBytes(all)}` : `${file.name} has been sent; the gates look at it`);
    });
    progress.hidden = true;
    isSending = false;
    showSession();
    if (outcome.status !== null && !hasEnded(outcome.status.id)) show(outcome.status);
    else if (outcome.status === null) list.prepend(h("li", { class: "upload-entry" }, toneMark("bad", "not published"), ` ${outcome.reason}`));
    announce(outcome.said);
  }

  function hasEnded(uploadId) {
    const known = rows.get(uploadId)?.status.state;
    return known !== undefined && known !== "receiving" && known !== "checking";
  }

  function show(status) {
    if (model !== null && status.model !== model) return;
    const before = rows.get(status.id);
    if (before && JSON.stringify(before.status) === JSON.stringify(status)) return;
    const row = createEntry(status, model === null);
    if (before) before.element.replaceWith(row);
    else list.prepend(row);
    rows.set(status.id, { status, element: row });
  }

  function showSession() {
    const isOn = Boolean(session.state?.uploads);
    const why = isOn ? session.whyNot("admin") : "Uploads are off on this server (store.uploads in settings.toml).";
    drop.hidden = why !== null || isSending;
    closed.hidden = why === null;
    element.hidden = model === null && why !== null;
    if (drop.hidden) form.hide();
    setChildren(
      closed,
      why === null ? null : h("p", null, `${why} From a terminal beside the store:`),
      why === null ? null : commandLine(`serving publish FILE --model ${model === null ? "NAME" : quoteWord(model)}`),
    );
  }

  choose.addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    take(chooser.files[0]);
    chooser.value = "";
  });
  form.onSubmit(publish);
  const target = model === null ? element : document;
  const over = (event) => {
    if (!event.dataTransfer?.types.includes("Files") || drop.hidden) return;
    event.preventDefault();
    drop.classList.toggle("drop-over", event.type === "dragover");
    if (event.type === "drop") take(event.dataTransfer.files[0]);
  };
  for (const kind of ["dragover", "dragleave", "drop"]) target.addEventListener(kind, over);
  const endings = [live.subscribe(["upload"], (_, status) => show(status)), session.subscribe(showSession)];
  for (const status of live.uploads.values()) show(status);
  showSession();
  return {
    element,
    update: (names) => {
      versions = names;
      form.suggest(suggestVersion(names));
    },
    dispose: () => {
      for (const kind of ["dragover", "dragleave", "drop"]) target.removeEventListener(kind, over);
      for (const end of endings) end();
    },
  };
}

/** Return the next number after the versions that are numbers; "1" where there is none. */
export function suggestVersion(names) {
  const numbers = names.map((name) => /^v?(\d+)$/i.exec(name)?.[1]).filter((number) => number !== undefined);
  return String(numbers.reduce((most, number) => (BigInt(number) > most ? BigInt(number) : most), 0n) + 1n);
}

function createNameForm(id, model) {
  const named = h("p", { class: "upload-file" });
  const name = h("input", { class: "input", id: `${id}-name`, required: true, maxlength: "100", autocomplete: "off", spellcheck: "false" });
  const version = h("input", { class: "input", id: `${id}-version`, required: true, maxlength: "100", autocomplete: "off", spellcheck: "false" });
  const breaking = h("input", { type: "checkbox" });
  const cancel = h("button", { type: "button", class: "button" }, "Cancel");
  const element = h(
    "form",
    { class: "upload-form", hidden: true },
    named,
    model === null ? h("div", { class: "field" }, h("label", { class: "field-label", for: name.id }, "Name of the model"), name) : null,
    h("div", { class: "field" }, h("label", { class: "field-label", for: version.id }, "Name of the version"), version),
    h("label", { class: "upload-option" }, breaking, " It may break clients of the version before"),
    h("div", { class: "upload-buttons" }, h("button", { type: "submit", class: "button primary" }, "Send it through the gates"), cancel),
  );
  let isTyped = false;
  version.addEventListener("input", () => {
    isTyped = true;
  });
  const suggest = (text) => {
    if (!isTyped) version.value = text;
  };
  const hide = () => {
    element.hidden = true;
  };
  cancel.addEventListener("click", hide);
  return {
    element,
    hide,
    suggest,
    show: (file, suggested) => {
      const sentAs = nameArtefact(file.name);
      const renamed = sentAs === file.name ? "" : `, as ${sentAs}`;
      setText(named, `${file.name}, ${formatBytes(file.size)}${renamed}. It is published only if every gate lets it pass.`);
      isTyped = false;
      suggest(suggested);
      breaking.checked = false;
      if (model === null) name.value = file.name.replace(/\.[^.]*$/, "").replaceAll(/[^A-Za-z0-9._-]+/g, "-");
      element.hidden = false;
      (model === null ? name : version).focus();
    },
    onSubmit: (publish) =>
      element.addEventListener("submit", (event) => {
        event.preventDefault();
        publish(model ?? name.value.trim(), version.value.trim(), breaking.checked);
      }),
  };
}

function createEntry(status, withModel) {
  const isRunning = status.state === "receiving" || status.state === "checking";
  const what = `${withModel ? `${status.model} ` : ""}${status.version ?? ""}`;
  return h(
    "li",
    { class: "upload-entry", "data-upload": status.id, "data-state": status.state },
    h(
      "p",
      null,
      toneMark(...(STATES[status.state] ?? ["idle", status.state])),
      status.state === "published" ? ` as ${what}: ` : ` ${what}: `,
      h("code", null, status.file),
      `, ${formatBytes(status.bytes)}, by ${status.actor}, `,
      timestamp(status.at, "ago"),
    ),
    status.reason ? h("p", { class: "upload-reason" }, status.gate ? `${status.gate}: ${status.reason}` : status.reason) : null,
    status.gates.length > 0 || isRunning
      ? h("details", { open: isRunning || status.state === "refused" }, h("summary", null, "Gates"), createGateList(status.gates, isRunning))
      : null,
  );
}
