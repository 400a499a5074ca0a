// What somebody should know or do, above a view: a title, a sentence, and the command or button that puts it right.

import { h } from "../dom.js";
import { commandLine } from "./command_line.js";
import { toneShape } from "./state_mark.js";

/**
 * Returns a banner.
 * @param {object} options
 * @param {import("./state_mark.js").Tone} options.tone
 * @param {string} options.title
 * @param {string | Node | null} [options.text]
 * @param {string[]} [options.items] a list below the text
 * @param {string | null} [options.command] for a terminal
 * @param {Node | null} [options.action] a button or link
 * @returns {HTMLElement}
 */
export function banner({ tone, title, text = null, items = [], command = null, action = null }) {
  return h(
    "section",
    { class: `banner tone-${tone}`, "aria-label": title },
    toneShape(tone),
    h(
      "div",
      { class: "banner-body" },
      h("p", { class: "banner-title" }, title),
      text && h("p", { class: "banner-text" }, text),
      items.length > 0 && h("ul", { class: "banner-items" }, items.map((item) => h("li", null, item))),
      command && commandLine(command),
    ),
    action && h("div", { class: "banner-action" }, action),
  );
}
