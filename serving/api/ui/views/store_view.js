// The store view.

import { h, setChildren } from "../dom.js";

/** @type {import("../main.js").Show} */
export function show(container, context, { name }) {
  setChildren(container, h("h1", null, name ?? "store"));
  return () => {};
}
