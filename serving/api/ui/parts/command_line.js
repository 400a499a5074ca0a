// A command for a terminal, with a button that copies it.

import { h, setText } from "../dom.js";
import { joinWords } from "./shell_words.js";

const SHOWN_MS = 2_000;

/**
 * Returns an element that shows a command.
 * @param {string} command
 * @returns {HTMLElement}
 */
export function commandLine(command) {
  const code = h("code", null, command);
  const button = h("button", { type: "button", class: "button quiet small", "aria-label": `Copy: ${command}` }, "Copy");
  button.addEventListener("click", async () => {
    const isCopied = await copyText(code);
    setText(button, isCopied ? "Copied" : "Press Ctrl+C");
    setTimeout(() => setText(button, "Copy"), SHOWN_MS);
  });
  return h("span", { class: "command" }, code, button);
}

/**
 * Returns a command of the `serving` program.
 * @param {...string} words quoted where a shell would read them otherwise
 * @returns {string}
 */
export function servingCommand(...words) {
  return joinWords(["serving", ...words]);
}

/** Copies; where the browser forbids that (plain HTTP from afar), selects the text instead and returns false. */
async function copyText(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return false;
  }
}
