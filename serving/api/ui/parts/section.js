// A part of the page that is built anew only when what it shows has changed; focus and open details stay.

import { h, setChildren } from "../dom.js";

/**
 * Return a function that shows data in `element`: `build(data)` returns its children.
 * Elements with `data-key` keep the focus, and `details` with `data-key` stay open, when they are built anew.
 */
export function createSection(element, build) {
  let shown;
  return (data) => {
    const wanted = JSON.stringify(data);
    if (wanted === shown) return;
    shown = wanted;
    const focused = element.contains(document.activeElement) ? document.activeElement.closest("[data-key]") : null;
    const key = focused?.dataset.key;
    const opened = [...element.querySelectorAll("details[data-key][open]")].map((details) => details.dataset.key);
    setChildren(element, build(data));
    for (const details of element.querySelectorAll("details[data-key]")) {
      if (opened.includes(details.dataset.key)) details.open = true;
    }
    if (key !== undefined) findFocusable(element, key)?.focus({ preventScroll: true });
  };
}

/** Return a titled part of the page; its heading names it for screen readers. */
export function createPanel(id, title, ...children) {
  return h(
    "section",
    { class: "panel", id, "aria-labelledby": `${id}-title` },
    h("h2", { id: `${id}-title`, class: "panel-title" }, title),
    ...children,
  );
}

function findFocusable(element, key) {
  const found = element.querySelector(`[data-key="${CSS.escape(key)}"]`);
  return found?.matches("details") ? found.querySelector("summary") : found;
}
