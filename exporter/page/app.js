/*
 * app.js -- the live page: what is drawn, and what the user does.
 *
 * DESIGN. What arrives is kept in plain objects (state.js) and drawn at most four times a second, the rows in
 * sight only: a burst, or ten thousand variables, cost the page no more than a trickle. The files are served as
 * one script, in the order that exporter/embed names.
 */
"use strict";

const DRAW_MS = 250;

const shown = { order: "last", variables: null, events: null, version: -1, filtered: -1 };

/* --- rows ----------------------------------------------------------------------------------------------------- */

function cellsOf(classes) {
  return classes.map((className, i) =>
    element(i === 0 ? "th" : "td", { className, role: i === 0 ? "rowheader" : "gridcell" }),
  );
}

function makeRow(classes) {
  const row = element("tr", { role: "row" }, ...cellsOf(classes));
  return row;
}

function makeVariableRow() {
  const row = makeRow(["c-name", "c-change", "c-who", "c-when", "c-curve", "c-rate"]);
  row.spark = makeSpark();
  row.children[4].append(row.spark.node);
  return row;
}

function bindVariable(row, entry) {
  const [name, change, who, when, , rate] = row.children,
    now = Date.now(),
    second = Math.floor(now / 1000);
  fill(name, entry.key, () => [
    element("span", { className: "name", title: entry.name, textContent: nameText(entry.name) }),
  ]);
  if (entry.last) lookUpValues(entry.last);
  const seen = entry.last
    ? `${entry.key} ${entry.last.seq} ${entry.last.told === true}`
    : `${entry.key} ${entry.lastSeq} ${numberText(entry.value)}`;
  fill(change, seen, () =>
    entry.last
      ? [
          element(
            "span",
            { className: "change", title: changeText(entry.last) },
            ...changeNodes(entry.last, false, 3),
          ),
        ]
      : [
          element(
            "span",
            { className: "soft" },
            entry.value !== undefined
              ? `holds ${numberText(entry.value)}`
              : entry.lastSeq
                ? "left the log"
                : "",
          ),
        ],
  );
  fill(who, seen, () => (entry.last ? authorNodes(entry.last) : []));
  fill(when, `${entry.lastMs} ${second}`, () => [
    element("span", {
      className: "age",
      title: entry.lastMs ? clockText(entry.lastMs) : "",
      textContent: ageText(entry.lastMs, now),
    }),
  ]);
  setText(rate, rateText(entry.rate));
  const drawn = `${entry.key} ${second} ${entry.curve.version}`;
  if (row.drawn !== drawn) drawSpark(row.spark, entry.curve, now);
  row.drawn = drawn;
}

function bindEvent(row, event) {
  if (!event.note) lookUpValues(event);
  const [change, who, when, bytes] = row.children,
    id = event.note ? event.id : `${event.seq} ${event.told === true}`;
  if (row.shownId === id) return;
  row.shownId = id;
  row.className = event.note ? (event.bad ? "note bad" : "note") : "";
  change.replaceChildren(
    event.note
      ? event.note
      : element("span", { className: "change", title: changeText(event) }, ...changeNodes(event, true, 3)),
  );
  who.replaceChildren(...(event.note ? [] : authorNodes(event)));
  when.replaceChildren(timeNode(event.time_ms));
  setText(bytes, event.note ? "" : event.changed_bytes ? `${event.changed_bytes.toLocaleString("en")} B` : "");
}

function makeLists() {
  shown.variables = new Rows($("variables"), {
    make: makeVariableRow,
    bind: bindVariable,
    keyOf: (entry) => entry.key,
    open: (entry) => openItem(variableHash(entry), document.activeElement),
  });
  shown.events = new Rows($("rows"), {
    make: () => makeRow(["c-change", "c-who", "c-when", "c-bytes"]),
    bind: bindEvent,
    keyOf: (event) => event.id ?? event.seq,
    open: (event) => {
      if (!event.note) openItem(`#/event/${event.seq}`, document.activeElement);
    },
  });
}

/* --- drawing -------------------------------------------------------------------------------------------------- */

function drawVariables() {
  const list = shown.variables,
    first = shown.filtered !== shown.filterNumber;
  if (list.held && !first && list.items.length) {
    list.draw();
  } else {
    const wanted = [];
    for (const entry of state.variables.values()) if (state.filter(entry.name)) wanted.push(entry);
    list.show(wanted.sort(ORDERS[shown.order]));
  }
  const n = list.items.length,
    all = state.variables.size;
  setText(
    $("variables-count"),
    (n === all ? count(all, "variable") : `${n.toLocaleString("en")} of ${count(all, "variable")}`) +
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
    setText($("held"), state.waiting ? `paused, ${state.waiting.toLocaleString("en")} waiting` : "paused");
    return;
  }
  setText($("held"), "");
  drawHealth();
  drawVariables();
  drawEvents();
  shown.filtered = shown.filterNumber;
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
  shown.filterNumber = 0;
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
setInterval(draw, DRAW_MS);
setInterval(everySecond, 1000);
setInterval(() => {
  if (!state.paused) renewDetail();
}, 2000);
