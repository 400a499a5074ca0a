// Makes and changes elements. Text is always text: nothing here parses HTML, and there is no other way to make elements.

const SVG = "http://www.w3.org/2000/svg";
const SAFE_LINK = /^(?:https?:|#|\.{0,2}\/|[\w-]+(?:[/?#]|$))/i;

/** @typedef {Node | string | number | null | undefined | false | Child[]} Child */

/**
 * Makes an HTML element.
 * Attributes: `on*` are listeners (functions only), `style` is an object of CSS properties, `dataset` an object,
 * true is an attribute without a value, and null, undefined and false leave one out.
 * @param {string} tag
 * @param {Record<string, any> | null} [attributes]
 * @param {...Child} children text or nodes; null, undefined and false are left out
 * @returns {HTMLElement}
 */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * Makes an SVG element, with attributes and children as in `h`.
 * @param {string} tag
 * @param {Record<string, any> | null} [attributes]
 * @param {...Child} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * Sets attributes as `h` does; null, undefined and false remove them.
 * @param {Element} element
 * @param {Record<string, any>} attributes
 */
export function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
}

/**
 * Sets the text of an element, only when it differs: a screen reader and the layout are left alone otherwise.
 * @param {Node} element
 * @param {string | number} text
 */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/**
 * Replaces all children.
 * @param {Element} element
 * @param {...Child} children
 */
export function setChildren(element, ...children) {
  element.replaceChildren(...flat(children));
}

/**
 * Returns a function that has `work` done once before the next picture, however often it is called until then.
 * `cancel` forgets what is to be done.
 * @param {() => void} work
 * @returns {(() => void) & {cancel: () => void}}
 */
export function oncePerFrame(work) {
  let frame = 0;
  const schedule = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      work();
    });
  };
  schedule.cancel = () => {
    cancelAnimationFrame(frame);
    frame = 0;
  };
  return schedule;
}

let lastId = 0;

/**
 * Returns an id that no other element has, for `for` and `aria-*`.
 * @param {string} prefix
 * @returns {string}
 */
export function uniqueId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

function fill(element, attributes, children) {
  if (attributes) setAttributes(element, attributes);
  element.append(...flat(children));
  return element;
}

function setAttribute(element, name, value) {
  if (name.startsWith("on")) {
    if (typeof value === "function") element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (value) throw new TypeError(`${name} takes a function`);
  } else if (name === "style") {
    for (const [property, text] of Object.entries(value ?? {})) element.style.setProperty(property, text);
  } else if (name === "dataset") {
    Object.assign(element.dataset, value);
  } else if (value === null || value === undefined || value === false) {
    element.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (name === "href" && !SAFE_LINK.test(text)) throw new TypeError(`not a link of this page: ${text}`);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

function flat(children) {
  const kept = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  return kept.map((child) => (child instanceof Node ? child : String(child)));
}
