// A table whose rows are made once and updated in place, with columns that sort. On narrow screens a row becomes a card;
// the roles are said in so many words, because browsers forget them when a row is not laid out as a row.

import { h, setAttributes } from "../dom.js";
import { NOTHING } from "../format.js";

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/**
 * @template T
 * @typedef {object} Column
 * @property {string} key
 * @property {string} title
 * @property {string} [hint] what the title means, as a tooltip
 * @property {boolean} [isNumber] aligned to the right; sorts large ones first
 * @property {boolean} [isHead] the cell that names the row
 * @property {(item: T) => string | number | null | undefined} sortBy null is last in either order
 * @property {(item: T) => unknown} watch what the cell depends on: it is updated when that is another value
 * @property {(cell: HTMLElement, item: T) => void} update shows the item in a cell
 */

/**
 * @template T
 */
export class SortedTable {
  /**
   * @param {object} options
   * @param {string} options.caption for screen readers
   * @param {Column<T>[]} options.columns
   * @param {(item: T) => string} options.keyOf
   * @param {string} [options.sort] a key, with a minus before it for the other order
   * @param {(sort: string) => void} [options.onSort]
   * @param {string} [options.className]
   */
  constructor({ caption, columns, keyOf, sort, onSort = () => {}, className = "" }) {
    /** @private */ this.columns = columns;
    /** @private */ this.keyOf = keyOf;
    /** @private */ this.onSort = onSort;
    /** @private @type {Map<string, {row: HTMLElement, cells: HTMLElement[], seen: unknown[], item: T}>} */
    this.rows = new Map();
    /** @private */ this.heads = columns.map((column) => this.makeHead(column));
    /** @private */ this.body = h("tbody", { role: "rowgroup" });
    this.table = h(
      "table",
      { class: `table sorted ${className}`, role: "table" },
      h("caption", { class: "visually-hidden" }, caption),
      h("colgroup", null, columns.map(({ key }) => h("col", { class: `col-${key}` }))),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, this.heads)),
      this.body,
    );
    this.element = h("div", { class: "table-box" }, this.table);
    this.sort = "";
    this.setSort(columns.some(({ key }) => key === sort?.replace("-", "")) ? sort : columns[0].key);
  }

  /**
   * Shows these items and no others. Rows that exist are kept, and moved only when the order has changed.
   * @param {Iterable<T>} items
   * @param {{keepOrder?: boolean}} [options] keepOrder: nothing moves; new rows come last
   */
  update(items, { keepOrder = false } = {}) {
    const wanted = new Map();
    for (const item of items) wanted.set(this.keyOf(item), item);
    for (const [key, { row }] of this.rows) {
      if (wanted.has(key)) continue;
      row.remove();
      this.rows.delete(key);
    }
    for (const [key, item] of wanted) {
      if (!this.rows.has(key)) this.rows.set(key, this.makeRow(item));
      const shown = this.rows.get(key);
      shown.item = item;
      for (const [i, column] of this.columns.entries()) {
        const value = column.watch(item);
        if (i in shown.seen && Object.is(shown.seen[i], value)) continue;
        shown.seen[i] = value;
        column.update(shown.cells[i], item);
        shown.cells[i].classList.toggle("is-empty", shown.cells[i].textContent === NOTHING);
      }
    }
    this.order(keepOrder);
  }

  /** How many rows there are. */
  get size() {
    return this.rows.size;
  }

  /** Whether somebody points at a row or has its focus: rows should then stay where they are. */
  get isInUse() {
    return this.body.matches(":hover") || this.body.contains(document.activeElement);
  }

  /** @private */
  order(keepOrder) {
    const rows = [...this.rows.values()];
    if (!keepOrder) rows.sort((a, b) => this.compare(a.item, b.item));
    let next = this.body.firstElementChild;
    for (const { row } of rows) {
      if (row === next) next = next.nextElementSibling;
      else if (!keepOrder || !row.parentNode) this.body.insertBefore(row, keepOrder ? null : next);
    }
  }

  /** @private */
  compare(a, b) {
    const column = this.columns.find(({ key }) => key === this.sort.replace("-", ""));
    const isBackwards = this.sort.startsWith("-");
    const [x, y] = [column.sortBy(a), column.sortBy(b)];
    const [noX, noY] = [x === null || x === undefined, y === null || y === undefined];
    if (noX !== noY) return noX ? 1 : -1;
    const difference = noX ? 0 : typeof x === "number" ? x - y : collator.compare(x, y);
    return (isBackwards ? -difference : difference) || collator.compare(this.keyOf(a), this.keyOf(b));
  }

  /** @private */
  setSort(sort) {
    this.sort = sort;
    const [key, direction] = [sort.replace("-", ""), sort.startsWith("-") ? "descending" : "ascending"];
    for (const [i, head] of this.heads.entries()) {
      setAttributes(head, { "aria-sort": this.columns[i].key === key ? direction : null });
    }
  }

  /** @private */
  makeHead(column) {
    const turn = () => {
      const { key, isNumber } = column;
      const [first, second] = isNumber ? [`-${key}`, key] : [key, `-${key}`];
      this.setSort(this.sort === first ? second : first);
      this.order(false);
      this.onSort(this.sort);
    };
    const button = h("button", { type: "button", class: "sort", onclick: turn, title: column.hint }, column.title);
    return h("th", { role: "columnheader", scope: "col", class: column.isNumber ? "number" : null }, button);
  }

  /** @private */
  makeRow(item) {
    const cells = this.columns.map(({ key, isHead, isNumber, title }) =>
      h(isHead ? "th" : "td", {
        role: isHead ? "rowheader" : "cell",
        scope: isHead ? "row" : null,
        class: `cell-${key}${isNumber ? " number" : ""}`,
        "data-title": isHead ? null : title,
      }),
    );
    return { row: h("tr", { role: "row" }, cells), cells, seen: [], item };
  }
}
