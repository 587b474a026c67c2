/*
 * rows.js -- a table of any length, of which only the rows in sight are nodes.
 *
 * DESIGN. Rows have one height, the CSS variable --row of the table's body. The node of row i is number i
 * modulo the pool's size, so that scrolling by one row fills one node. One row is in the tab order; arrows move
 * it, Enter opens it. While somebody points into the table or walks in it by keyboard the list stands still:
 * what moves away from under a pointer cannot be clicked.
 */
"use strict";

const OVERSCAN = 4,
  POINTING_MS = 3000;

class Rows {
  /* make(): a new tr; bind(tr, item): fills it; keyOf(item); open(item): it was chosen. */
  constructor(body, { make, bind, keyOf, open }) {
    Object.assign(this, {
      body,
      make,
      bind,
      keyOf,
      open,
      items: [],
      pool: [],
      active: 0,
      pointedAt: -Infinity,
    });
    this.scroller = body.closest(".scroll");
    this.table = body.closest("table");
    this.scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    this.scroller.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse") this.pointedAt = performance.now();
    });
    this.scroller.addEventListener("pointerleave", () => {
      this.pointedAt = -Infinity;
    });
    body.addEventListener("keydown", (event) => this.key(event));
    body.addEventListener("click", (event) => this.click(event));
    new ResizeObserver(() => {
      this.height = 0;
      this.draw();
    }).observe(this.scroller);
  }

  get held() {
    return (
      performance.now() - this.pointedAt < POINTING_MS || this.body.querySelector(":focus-visible") !== null
    );
  }

  show(items) {
    const key = this.items.length ? this.keyOf(this.items[Math.min(this.active, this.items.length - 1)]) : null;
    this.items = items;
    if (key !== null && (this.active >= items.length || this.keyOf(items[this.active]) !== key)) {
      const at = this.body.contains(document.activeElement)
        ? items.findIndex((item) => this.keyOf(item) === key)
        : 0;
      this.active = Math.max(0, at);
    }
    this.draw();
  }

  /* The rows in sight: [first, end). */
  sight() {
    this.height ||= parseFloat(getComputedStyle(this.body).getPropertyValue("--row")) || 44;
    const top = Math.max(0, this.scroller.scrollTop - OVERSCAN * this.height);
    const first = Math.min(Math.floor(top / this.height), Math.max(0, this.items.length - 1));
    return [
      first,
      Math.min(this.items.length, first + Math.ceil(this.scroller.clientHeight / this.height) + 2 * OVERSCAN),
    ];
  }

  draw() {
    const [first, end] = this.sight(),
      n = end - first;
    while (this.pool.length < n) this.pool.push(this.make());
    const nodes = [];
    for (let i = first; i < end; i++) nodes.push(this.row(i));
    this.body.style.paddingTop = `${first * this.height}px`;
    this.body.style.paddingBottom = `${(this.items.length - end) * this.height}px`;
    this.table.setAttribute("aria-rowcount", String(this.items.length + 1));
    const shown = this.body.children;
    if (shown.length === n && nodes.every((node, i) => shown[i] === node)) return;
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    this.body.replaceChildren(...nodes);
    if (focused && focused.isConnected && document.activeElement !== focused)
      focused.focus({ preventScroll: true });
  }

  row(i) {
    const node = this.pool[i % this.pool.length],
      item = this.items[i];
    node.item = item;
    node.place = i;
    node.tabIndex = i === this.active ? 0 : -1;
    node.setAttribute("aria-rowindex", String(i + 2));
    this.bind(node, item);
    return node;
  }

  click(event) {
    const row = event.target.closest("tr");
    if (!row || window.getSelection().toString()) return;
    this.active = row.place;
    this.open(row.item);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.height) - 1),
      last = this.items.length - 1;
    const to = {
      ArrowDown: this.active + 1,
      ArrowUp: this.active - 1,
      j: this.active + 1,
      k: this.active - 1,
      Home: 0,
      End: last,
      PageDown: this.active + page,
      PageUp: this.active - page,
    }[event.key];
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (to !== undefined) this.focus(Math.max(0, Math.min(last, to)));
    else if ((event.key === "Enter" || event.key === " ") && event.target.closest("tr"))
      this.open(event.target.closest("tr").item);
    else return;
    event.preventDefault();
  }

  focus(i = this.active) {
    if (!this.items.length) return;
    this.active = Math.max(0, Math.min(i, this.items.length - 1));
    const top = this.active * this.height,
      view = this.scroller,
      head = this.table.tHead ? this.table.tHead.offsetHeight : 0;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + this.height + head > view.scrollTop + view.clientHeight)
      view.scrollTop = top + this.height + head - view.clientHeight;
    this.draw();
    this.pool[this.active % this.pool.length].focus({ preventScroll: true });
  }
}
