// Asks before a deed that takes something out of service: what will happen, and the command line that does the same.

import { h } from "../dom.js";
import { commandLine } from "./command_line.js";

/** Ask whether to do a deed; resolves to true when it is confirmed, and gives the focus back. */
export function confirmDeed(deed) {
  const confirm = h(
    "button",
    { type: "submit", value: "yes", class: deed.isDestructive ? "button danger" : "button primary" },
    deed.label,
  );
  const cancel = h("button", { type: "submit", value: "no", class: "button" }, "Cancel");
  const dialog = h(
    "dialog",
    { class: "dialog deed-dialog", "aria-labelledby": "deed-title", "aria-describedby": "deed-text" },
    h(
      "form",
      { method: "dialog", class: "dialog-form" },
      h("h2", { id: "deed-title" }, deed.confirm.title),
      h("p", { id: "deed-text", class: "dialog-text" }, deed.confirm.text),
      commandLine(deed.command),
      h("div", { class: "dialog-buttons" }, cancel, confirm),
    ),
  );
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    dialog.showModal();
    cancel.focus();
  });
}
