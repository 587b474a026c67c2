/*
 * rows.js -- a table of any length, of which only the rows in sight are nodes.
 *
 * DESIGN. Rows have one height, the CSS variable --row of the table's body. An item keeps its node while it is in
 * sight, so that an item that comes, or moves, costs one row and not those that it pushes down. Nothing here asks
 * the browser where things are while a list is drawn: the answer would need a layout of what was just written.
 * One row is in the tab order; arrows move it, Enter opens it. While somebody points into the table or walks in it
 * by keyboard the list stands still: what moves away from under a pointer cannot be clicked.
 */
"use strict";

const OVERSCAN = 4,
  POINTING_MS = 3000;

class Rows {
  /* make(): a new tr; bind(tr, item): fills it; open(item): it was chosen. Items are told apart by identity. */
  constructor(body, { make, bind, open }) {
    Object.assign(this, {
      body,
      make,
      bind,
      open,
      items: [],
      nodes: new Map(), // item in sight -> its node
      spare: [],
      active: 0,
      top: 0, // of the scroller: what is scrolled away, and what is seen
      seen: 0,
      pointedAt: -Infinity,
    });
    this.scroller = body.closest(".scroll");
    this.table = body.closest("table");
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.scroller.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse") this.pointedAt = performance.now();
    });
    this.scroller.addEventListener("pointerleave", () => {
      this.pointedAt = -Infinity;
    });
    body.addEventListener("keydown", (event) => this.key(event));
    body.addEventListener("click", (event) => this.click(event));
    new ResizeObserver(() => {
      this.height = parseFloat(getComputedStyle(this.body).getPropertyValue("--row"));
      this.seen = this.scroller.clientHeight;
      this.scrolled();
    }).observe(this.scroller);
  }

  scrolled() {
    this.top = this.scroller.scrollTop;
    this.draw();
  }

  get held() {
    return performance.now() - this.pointedAt < POINTING_MS || this.walked;
  }

  get walked() {
    return this.body.contains(document.activeElement) && document.activeElement.matches(":focus-visible");
  }

  show(items) {
    const item = this.items[this.active];
    this.items = items;
    if (item !== items[this.active])
      this.active = this.body.contains(document.activeElement) ? Math.max(0, items.indexOf(item)) : 0;
    this.draw();
  }

  /* The rows in sight: [first, end). */
  sight() {
    const n = this.items.length,
      first = Math.floor(this.top / this.height) - OVERSCAN,
      end = Math.ceil((this.top + this.seen) / this.height) + OVERSCAN;
    return [Math.max(0, Math.min(first, n - 1)), Math.min(n, end)];
  }

  draw() {
    if (!this.height) return; // the first look at the size is to come
    const [first, end] = this.sight();
    this.assign(this.items.slice(first, end));
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    let next = this.body.firstChild;
    for (let i = first; i < end; i++) {
      const node = this.row(i);
      if (node === next) next = next.nextSibling;
      else this.body.insertBefore(node, next);
    }
    for (const node of this.spare) node.remove();
    this.reserve(first, end);
    if (focused && focused.isConnected && document.activeElement !== focused)
      focused.focus({ preventScroll: true });
  }

  /* Gives each item in sight a node: the one it has, else one of those that nobody needs any more. */
  assign(items) {
    const wanted = new Set(items);
    for (const [item, node] of this.nodes) if (!wanted.has(item)) this.spare.push(node);
    this.spare.reverse(); // in the order of the list: what fills a new list need not be moved
    this.nodes = new Map(
      items.map((item) => [item, this.nodes.get(item) ?? this.spare.pop() ?? this.make()]),
    );
  }

  /* The room of the rows out of sight, and how many there are. */
  reserve(first, end) {
    const room = `${first * this.height} ${(this.items.length - end) * this.height} ${this.items.length}`;
    if (this.room === room) return;
    this.room = room;
    this.body.style.paddingTop = `${first * this.height}px`;
    this.body.style.paddingBottom = `${(this.items.length - end) * this.height}px`;
    this.table.setAttribute("aria-rowcount", String(this.items.length + 1));
  }

  row(i) {
    const item = this.items[i],
      node = this.nodes.get(item),
      tabIndex = i === this.active ? 0 : -1;
    node.item = item;
    if (node.tabIndex !== tabIndex) node.tabIndex = tabIndex;
    if (node.place !== i) node.setAttribute("aria-rowindex", String(i + 2));
    node.place = i;
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
    this.scrolled();
    this.nodes.get(this.items[this.active]).focus({ preventScroll: true });
  }
}
