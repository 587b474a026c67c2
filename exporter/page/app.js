/*
 * app.js -- the live page: what is drawn, and what the user does.
 *
 * DESIGN. What arrives is kept in plain objects (state.js). Each list is drawn at most four times a second, the rows in
 * sight only: a burst, or ten thousand variables, cost the page no more than a trickle. The files are served as
 * one script, in the order that exporter/embed names.
 */
"use strict";

const DRAW_MS = 250;

const shown = {
  order: "last",
  variables: null,
  events: null,
  version: -1,
  filtered: -1,
  filterNumber: 0,
  listing: "",
  turn: false,
  frame: 0,
};

/* --- rows ----------------------------------------------------------------------------------------------------- */

function cellsOf(classes) {
  return classes.map((className, i) =>
    element(i === 0 ? "th" : "td", { className, role: i === 0 ? "rowheader" : "gridcell" }),
  );
}

function makeRow(classes) {
  return element("tr", { role: "row" }, ...cellsOf(classes));
}

function makeVariableRow() {
  const row = makeRow(["c-name", "c-change", "c-who", "c-when", "c-curve", "c-rate"]);
  row.name = element("span", { className: "name" });
  row.age = element("span", { className: "age" });
  row.spark = makeSpark();
  row.children[0].append(row.name);
  row.children[3].append(row.age);
  row.children[4].append(row.spark.node);
  return row;
}

/* The words for a change; its tooltip has the variable's name too, for a list that shows it elsewhere. */
function changeNode(event, named) {
  const node = element("span", { className: "change" }, ...changeNodes(event, named, 3));
  node.title = named ? node.textContent : `${nameText(event.name)}: ${node.textContent}`;
  return node;
}

function lastChangeNode(entry) {
  if (entry.last) return changeNode(entry.last, false);
  const left = entry.lastSeq ? "left the log" : "";
  return element("span", { className: "soft" }, entry.value === undefined ? left : `holds ${numberText(entry.value)}`);
}

function bindVariable(row, entry) {
  const [, change, who, , , rate] = row.children,
    now = Date.now(),
    second = Math.floor(now / 1000),
    last = entry.last;
  if (last) lookUpValues(last);
  if (row.entry !== entry) {
    setText(row.name, nameText(entry.name));
    row.name.title = spelt(entry.name);
  }
  const what = last ? `${last.seq} ${last.told === true}` : `${entry.lastSeq} ${numberText(entry.value)}`;
  if (row.entry !== entry || row.last !== last || row.what !== what) {
    change.replaceChildren(lastChangeNode(entry));
    who.replaceChildren(...(last ? authorNodes(last) : []));
  }
  if (row.entry !== entry || row.second !== second || row.version !== entry.curve.version) {
    setText(row.age, ageText(entry.lastMs, now));
    row.age.title = entry.lastMs ? clockText(entry.lastMs) : "";
    setText(rate, rateText(entry.rate));
    drawSpark(row.spark, entry.curve, now);
  }
  Object.assign(row, { entry, last, what, second, version: entry.curve.version });
}

function bindEvent(row, event) {
  if (!event.note) lookUpValues(event);
  if (row.event === event && row.told === event.told) return;
  Object.assign(row, { event, told: event.told });
  const [change, who, when, bytes] = row.children;
  row.className = event.note ? (event.bad ? "note bad" : "note") : "";
  change.replaceChildren(event.note ?? changeNode(event, true));
  who.replaceChildren(...(event.note ? [] : authorNodes(event)));
  when.replaceChildren(timeNode(event.time_ms));
  setText(bytes, event.changed_bytes ? `${NUMBER.format(event.changed_bytes)} B` : "");
}

function makeLists() {
  shown.variables = new Rows($("variables"), {
    make: makeVariableRow,
    bind: bindVariable,
    open: (entry) => openItem(variableHash(entry), document.activeElement),
  });
  shown.events = new Rows($("rows"), {
    make: () => makeRow(["c-change", "c-who", "c-when", "c-bytes"]),
    bind: bindEvent,
    open: (event) => {
      if (!event.note) openItem(`#/event/${event.seq}`, document.activeElement);
    },
  });
}

/* --- drawing -------------------------------------------------------------------------------------------------- */

/* The variables that pass the filter, in order. In a list that stands only those that changed look for a place. */
function orderedVariables() {
  const compare = ORDERS[shown.order],
    wanted = (entry) => state.filter(entry.name),
    listing = `${state.listing} ${shown.filterNumber}`,
    all = shown.listing !== listing,
    moved = [...(all ? state.variables.values() : state.changed)].filter(wanted).sort(compare);
  const stay = all ? [] : shown.variables.items.filter((entry) => !state.changed.has(entry));
  shown.listing = listing;
  state.changed.clear();
  return merged(moved, stay, compare);
}

/* Of two lists in order, one. */
function merged(some, others, compare) {
  const list = [];
  let at = 0;
  for (const other of others) {
    while (at < some.length && compare(some[at], other) < 0) list.push(some[at++]);
    list.push(other);
  }
  return list.concat(some.slice(at));
}

function drawVariables() {
  const list = shown.variables,
    first = shown.filtered !== shown.filterNumber;
  if (list.held && !first && list.items.length) list.draw();
  else list.show(orderedVariables());
  const n = list.items.length,
    all = state.variables.size;
  setText(
    $("variables-count"),
    (n === all ? count(all, "variable") : `${NUMBER.format(n)} of ${count(all, "variable")}`) +
      (list.held ? ", order held" : ""),
  );
  $("no-variables").hidden = n > 0;
  setText(
    $("no-variables"),
    all ? "No variable matches the filter." : state.live ? "No variable is watched." : "",
  );
}

function drawEvents() {
  const list = shown.events,
    first = shown.filtered !== shown.filterNumber;
  if (state.version !== shown.version && (!list.held || first)) {
    shown.version = state.version;
    const wanted = [];
    for (let i = state.events.length - 1; i >= 0; i--) {
      if (state.events[i].note || state.filter(state.events[i].name)) wanted.push(state.events[i]);
    }
    list.show(wanted);
  } else {
    list.draw();
  }
  setText($("events-count"), list.held ? "list held while you point at it" : "");
  $("no-events").hidden = list.items.length > 0;
  setText(
    $("no-events"),
    state.events.length
      ? "No event matches the filter."
      : state.live
        ? "Nothing has changed since the watcher was opened."
        : "",
  );
}

function draw() {
  if (state.paused) {
    setText($("held"), state.waiting ? `paused, ${NUMBER.format(state.waiting)} waiting` : "paused");
    return;
  }
  setText($("held"), "");
  drawHealth();
  drawVariables();
  drawEvents();
  shown.filtered = shown.filterNumber;
}

/* By turns, that a frame has one list to draw. */
function drawTurn() {
  shown.frame = 0;
  shown.turn = !shown.turn;
  if (state.paused) draw();
  else if (shown.turn) drawVariables();
  else {
    drawHealth();
    drawEvents();
  }
}

/* --- controls ------------------------------------------------------------------------------------------------- */

function setPaused(paused) {
  state.paused = paused;
  state.waiting = 0;
  $("pause").setAttribute("aria-pressed", String(paused));
  setText($("pause"), paused ? "Go on" : "Pause");
  if (!paused) shown.filterNumber++;
  draw();
}

function setOrder(order) {
  shown.order = order;
  for (const button of document.querySelectorAll("[data-order]")) {
    const head = button.closest("th"),
      own = button.dataset.order === order;
    head.setAttribute(
      "aria-sort",
      own ? (order === "name" || order === "writer" ? "ascending" : "descending") : "none",
    );
  }
  shown.filterNumber++;
  draw();
}

function setFilter() {
  state.filter = makeFilter($("filter").value.trim());
  shown.filterNumber++;
  shown.version = -1;
  draw();
}

function escape() {
  if (document.activeElement === $("filter")) {
    if ($("filter").value) {
      $("filter").value = "";
      setFilter();
    }
    $("filter").blur();
  } else if (view.kind) closeDetail();
}

const KEYS = {
  "/": () => $("filter").focus(),
  p: () => setPaused(!state.paused),
  v: () => shown.variables.focus(),
  e: () => shown.events.focus(),
  o: () => setOrder({ last: "name", name: "rate", rate: "writer", writer: "last" }[shown.order]),
  "?": () => $("help").showModal(),
};

function onKey(event) {
  if ($("help").open) {
    if (event.key === "?") {
      event.preventDefault();
      $("help").close();
    }
    return;
  }
  if (event.key === "Escape") escape();
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input:not([type=range])")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function listen() {
  $("login").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN_KEY, $("token").value.trim());
    $("token").value = "";
    reconnectNow();
  });
  window.addEventListener("hashchange", () => {
    if (location.hash && !location.hash.startsWith("#/")) begin();
    else route();
  });
  window.addEventListener("popstate", () => {
    if (!location.hash) route();
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("filter").addEventListener("input", setFilter);
  $("pause").addEventListener("click", () => setPaused(!state.paused));
  $("keys").addEventListener("click", () => $("help").showModal());
  $("help-close").addEventListener("click", () => $("help").close());
  $("close").addEventListener("click", closeDetail);
  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    shown.events.focus();
  });
  document
    .querySelectorAll("[data-order]")
    .forEach((button) => button.addEventListener("click", () => setOrder(button.dataset.order)));
  document.addEventListener("keydown", onKey);
}

async function begin() {
  try {
    await takeCode();
  } catch {
    /* nobody answers: connect() says so */
  }
  reconnectNow();
}

makeLists();
listen();
begin();
route();
pollStatus();
pollRegions();
setInterval(() => {
  shown.frame ||= requestAnimationFrame(drawTurn);
}, DRAW_MS / 2);
setInterval(everySecond, 1000);
setInterval(() => {
  if (!state.paused) renewDetail();
}, 2000);
