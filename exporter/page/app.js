/*
 * app.js -- the live page.
 *
 * DESIGN. The address that opens the page ends in a one-time code behind the `#`. The page exchanges it for the token, and
 * keeps that in sessionStorage: it belongs to this tab and this port, no other site gets it, and no history holds it. One
 * stream of lines brings the events; /api/v1/status and /api/v1/regions are asked every few seconds. What arrives is kept in
 * plain objects and drawn at most four times a second, the newest ROWS_MAX events only: a burst costs the page no more than
 * a trickle. Everything that comes from the process is put in by textContent, its control characters spelt out.
 */
"use strict";

const ROWS_MAX = 200, VARIABLES_MAX = 200, POINTS = 60, BYTES_SHOWN = 24, REGIONS_MAX = 20000;
const TOKEN_KEY = "memwatch-token";
const DRAW_MS = 250, STATUS_MS = 2000, REGIONS_MS = 5000, RETRY_MIN_MS = 500, RETRY_MAX_MS = 10000;

const $ = (id) => document.getElementById(id);

const state = {
  epoch: null, seq: null, status: null,
  variables: new Map(), // name -> {name, size, events, points, bins, lastMs, value, row}
  rows: [],             // newest first: {node, name}
  fresh: [],            // arrived, not drawn yet
  missed: 0, received: 0, bin: 0, rate: 0, paused: false, held: 0, filter: () => true, retryMs: RETRY_MIN_MS, retry: 0,
};

/* --- building nodes ------------------------------------------------------------------------------------------- */

/* Characters that hide, reorder or break text, as their numbers. */
function spelt(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, (c) =>
    "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  Object.assign(node, properties);
  if ("textContent" in properties) node.textContent = spelt(properties.textContent);
  node.append(...children);
  return node;
}

function setText(node, text) {
  const clean = spelt(text);
  if (node.textContent !== clean) node.textContent = clean;
}

/* --- words for numbers ---------------------------------------------------------------------------------------- */

function shortNumber(value) {
  if (value >= 1e9) return (value / 1e9).toFixed(1) + " G";
  if (value >= 1e6) return (value / 1e6).toFixed(1) + " M";
  if (value >= 1e4) return (value / 1e3).toFixed(1) + " k";
  return String(Math.round(value * 10) / 10);
}

function age(ms) {
  if (!ms) return "not yet";
  const seconds = Math.max(0, (Date.now() - ms) / 1000);
  if (seconds < 1.5) return "now";
  if (seconds < 120) return Math.round(seconds) + " s ago";
  if (seconds < 7200) return Math.round(seconds / 60) + " min ago";
  return Math.round(seconds / 3600) + " h ago";
}

function clock(ms) {
  const date = new Date(ms);
  return date.toLocaleTimeString([], { hour12: false }) + "." + String(date.getMilliseconds()).padStart(3, "0");
}

/* --- values --------------------------------------------------------------------------------------------------- */

function bytesOf(base64) {
  return base64 === null || base64 === undefined ? null : Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

function isText(bytes) {
  return bytes.length > 0 && bytes.every((b) => b === 0 || (b >= 32 && b < 127)) && bytes.some((b) => b !== 0);
}

/* The bytes around the first change, changed ones marked. */
function markedBytes(bytes, changes, asText) {
  const first = changes.length ? changes[0][0] : 0;
  const start = Math.max(0, Math.min(first - 4, bytes.length - BYTES_SHOWN));
  const end = Math.min(bytes.length, start + BYTES_SHOWN);
  const changed = (i) => changes.some(([offset, length]) => i >= offset && i < offset + length);
  const code = element("code");
  if (start > 0) code.append("…");
  for (let i = start; i < end; i++) {
    const text = asText ? (bytes[i] === 0 ? "·" : String.fromCharCode(bytes[i])) : bytes[i].toString(16).padStart(2, "0");
    code.append(changed(i) ? element("mark", { textContent: text }) : text);
    if (!asText && i + 1 < end) code.append(" ");
  }
  if (end < bytes.length) code.append("…");
  return code;
}

function elementChange(item) {
  return element("div", {}, element("code", { textContent: `[${item.index.join(", ")}]: ${item.old} → ${item.new}` }));
}

function valueCell(event) {
  const cell = element("td", { className: "bytes" });
  if (event.kind === "lost") {
    cell.append("the memory vanished: no longer watched");
  } else if ("new_number" in event) {
    cell.append(element("code", { textContent: String(event.old_number) }), " → ", element("mark", { textContent: String(event.new_number) }));
  } else if (event.elements && event.elements.length) {
    event.elements.slice(0, 4).forEach((item) => cell.append(elementChange(item)));
    if (event.elements.length > 4) cell.append("…");
  } else if (event.new_hash) {
    cell.append(element("code", { textContent: `hash ${event.old_hash} → ${event.new_hash}` }));
  } else {
    const before = bytesOf(event.old ?? event.old_preview), after = bytesOf(event.new ?? event.new_preview);
    if (!before && !after) cell.append("changed (values are hidden)");
    else {
      const asText = [before, after].every((bytes) => !bytes || isText(bytes));
      cell.append(before ? markedBytes(before, event.changes, asText) : "—", " → ", after ? markedBytes(after, event.changes, asText) : "—");
    }
  }
  return cell;
}

function place(frame) {
  return frame.file ? `${frame.file}:${frame.line ?? "?"} ${frame.function ?? ""}` : frame.function ?? "";
}

function whoCell(event) {
  const where = event.where, cell = element("td");
  const name = place(where) || (where.symbol ? `${where.symbol} (${where.object ?? ""})` : "");
  const how = where.attribution === "exact" ? "exact" : `unknown: ${where.reason ?? where.attribution}`;
  const thread = where.thread_name || where.thread_id ? ` · thread ${where.thread_name ?? ""} ${where.thread_id ?? ""}` : "";
  if (where.frames.length > 1) {
    const list = element("ol", {}, ...where.frames.map((frame) => element("li", { textContent: place(frame) })));
    cell.append(element("details", {}, element("summary", { textContent: name }), list));
  } else if (name) {
    cell.append(element("div", { textContent: name }));
  }
  cell.append(element("div", { className: "how", textContent: how + thread }));
  if (where.page_writer) {
    const hint = place(where.page_writer) || where.page_writer.symbol || "";
    cell.append(element("details", { className: "how" }, element("summary", { textContent: "wrote to the page" }), hint));
  }
  return cell;
}

/* --- events --------------------------------------------------------------------------------------------------- */

function eventRow(event) {
  const row = element("tr");
  row.append(
    element("td", {}, element("time", { dateTime: new Date(event.time_ms).toISOString(), textContent: clock(event.time_ms) })),
    element("th", { scope: "row", textContent: event.name }),
    valueCell(event),
    element("td", { className: "number", textContent: event.changed_bytes ? `${event.changed_bytes} B` : "" }),
    whoCell(event),
  );
  return row;
}

function noteRow(text, className) {
  return element("tr", { className }, element("td", { textContent: clock(Date.now()) }), element("td", { colSpan: 4, textContent: text }));
}

function addNote(text, className) {
  state.fresh.push({ name: null, make: () => noteRow(text, className) });
}

function variable(name) {
  let entry = state.variables.get(name);
  if (!entry) {
    entry = { name, size: 0, events: 0, points: [], bins: new Array(POINTS).fill(0), bin: 0, lastMs: 0, value: null, row: null };
    state.variables.set(name, entry);
  }
  return entry;
}

function takeEvent(event) {
  const entry = variable(event.name);
  state.seq = event.seq;
  state.received++;
  state.bin++;
  entry.events++;
  entry.bin++;
  entry.lastMs = event.time_ms;
  if ("new_number" in event) {
    entry.value = event.new_number;
    const number = Number(event.new_number);
    if (Number.isFinite(number)) entry.points.push(number);
    if (entry.points.length > POINTS) entry.points.shift();
  }
  state.fresh.push({ name: event.name, make: () => eventRow(event) });
  if (state.fresh.length > ROWS_MAX * 2) state.fresh.splice(0, state.fresh.length - ROWS_MAX);
}

function takeGap(gap) {
  state.missed += gap.missed;
  state.seq = gap.to;
  addNote(`${gap.missed} events are missing here: they left the log before this page came to them.`, "gap");
}

function takeReset(reset) {
  const restarted = state.epoch !== null && state.epoch !== reset.epoch;
  state.epoch = reset.epoch;
  state.seq = Math.max(0, reset.oldest - 1);
  if (restarted) {
    addNote("The watcher was opened anew: its numbering begins again.", "note");
    state.variables.clear();
    $("variables").replaceChildren();
    loadRegions();
  }
}

/* --- the connection ------------------------------------------------------------------------------------------- */

function showConnection(name, text) {
  $("connection").dataset.state = name;
  setText($("connection"), text);
}

function showProblem(text) {
  $("problem").hidden = !text;
  setText($("problem"), text);
}

function ask(path, type, authorization = `Bearer ${sessionStorage.getItem(TOKEN_KEY)}`) {
  return fetch(path, { headers: { Accept: type, Authorization: authorization } });
}

async function getJson(path) {
  const response = await ask(path, "application/json");
  if (!response.ok) throw Object.assign(new Error(`${path}: ${response.status}`), { status: response.status });
  return response.json();
}

/* The code of the address becomes the token. It leaves the address bar first. */
async function takeCode() {
  const code = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  if (!code) return;
  const response = await ask("/api/v1/token", "application/json", `Memwatch-Code ${code}`);
  if (response.ok) sessionStorage.setItem(TOKEN_KEY, (await response.json()).token);
}

function reconnectLater() {
  clearTimeout(state.retry);
  state.retry = setTimeout(connect, state.retryMs);
  state.retryMs = Math.min(state.retryMs * 2, RETRY_MAX_MS);
}

function reconnectNow() {
  clearTimeout(state.retry);
  state.retryMs = RETRY_MIN_MS;
  connect();
}

function showRefusal() {
  const had = sessionStorage.getItem(TOKEN_KEY) !== null;
  showConnection("refused", had ? "token refused" : "no token");
  showProblem(had ? "The process was started anew with another token: open the address that it gives, or enter the token."
    : "This page needs the token. The address that the process gives opens it once; another browser needs another address, or the token.");
  $("login").hidden = false;
}

function takeLine(line) {
  const frame = JSON.parse(line);
  if (frame.kind === "gap") takeGap(frame);
  else if (frame.kind === "reset") takeReset(frame);
  else if (frame.kind === "bookmark") state.seq = frame.seq;
  else takeEvent(frame);
}

/* Reads lines until the stream ends. */
async function readStream(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    lines.forEach(takeLine);
  }
}

async function connect() {
  try {
    takeStatus(await getJson("/api/v1/status"));
    $("login").hidden = true;
    showProblem("");
    const since = state.seq === null ? "" : `?since=${state.seq}&epoch=${state.epoch}`;
    const response = await ask("/api/v1/events/stream" + since, "application/x-ndjson");
    if (!response.ok) throw Object.assign(new Error("stream"), { status: response.status });
    state.retryMs = RETRY_MIN_MS;
    showConnection("live", "live");
    await readStream(response);
    throw new Error("the stream ended");
  } catch (error) {
    if (error.status === 401) showRefusal();
    else showConnection("lost", "no answer, trying again");
    if (error.status !== 401 || sessionStorage.getItem(TOKEN_KEY) !== null) reconnectLater();
  }
}

/* --- status and regions --------------------------------------------------------------------------------------- */

function takeStatus(status) {
  if (state.epoch === null) {
    state.epoch = status.epoch;
    state.seq = status.newest;
  }
  state.status = status;
  const who = status.worker === null ? status.service : `${status.service} / ${status.worker}`;
  setText($("service"), who);
  document.title = spelt(`${who} · memwatch`);
  const labels = Object.entries(status.labels).map(([name, value]) => `${name}=${value} · `).join("");
  const forks = status.forks_unwatched === 0 ? "" : ` · forked ${status.forks_unwatched} times, the children are not watched`;
  setText($("about"), `${labels}pid ${status.pid} · backend ${status.backend} · version ${status.version}${forks}`);
}

async function pollStatus() {
  if ($("connection").dataset.state === "live") {
    try { takeStatus(await getJson("/api/v1/status")); } catch { /* the stream notices the same and tries again */ }
  }
  setTimeout(pollStatus, STATUS_MS);
}

async function loadRegions() {
  const listed = new Set();
  let next = "";
  do {
    const page = await getJson(`/api/v1/regions?limit=1000${next && `&continue=${next}`}`);
    for (const region of page.regions) {
      const entry = variable(region.name);
      listed.add(region.name);
      entry.size = region.size;
      entry.events = region.ledger.delivered;
      entry.lastMs = region.last_time_ms;
      if ("value" in region) entry.value = region.value;
    }
    next = page.next;
  } while (next && listed.size < REGIONS_MAX);
  for (const name of state.variables.keys()) {
    if (!next && !listed.has(name)) state.variables.delete(name);
  }
}

async function pollRegions() {
  try { if ($("connection").dataset.state === "live") await loadRegions(); } catch { /* as above */ }
  setTimeout(pollRegions, REGIONS_MS);
}

/* --- drawing -------------------------------------------------------------------------------------------------- */

function tile(name, value, bad) {
  let box = $("health-" + name);
  if (!box) {
    box = element("div", { id: "health-" + name }, element("dt", { textContent: name.replaceAll("-", " ") }), element("dd"));
    $("health").append(box);
  }
  setText(box.lastChild, value);
  box.lastChild.className = bad ? "bad" : "";
}

function drawHealth() {
  const status = state.status;
  if (!status) return;
  const lost = Object.values(status.dropped).reduce((sum, n) => sum + n, 0);
  const known = status.attribution.exact + status.attribution.page;
  const events = known + status.attribution.none;
  tile("events-per-second", shortNumber(state.rate));
  tile("events", shortNumber(status.ledger.delivered));
  tile("dropped", shortNumber(lost), lost > 0);
  tile("missed-by-this-page", shortNumber(state.missed), state.missed > 0);
  tile("regions", shortNumber(status.regions));
  tile("bytes-watched", shortNumber(status.region_bytes));
  tile("writer-known", events ? `${Math.round((100 * known) / events)} %` : status.attribution.available ? "yes" : "no", !status.attribution.available);
  tile("ring", `${Math.round((100 * status.ring.notes) / status.ring.capacity)} %`, status.ring.notes > 0.8 * status.ring.capacity);
  tile("memory", `${shortNumber(status.native_memory_bytes)}B`);
  for (const recorder of status.recorders) {
    tile("recording", recorder.failing ? `failing: ${recorder.message}` : `${shortNumber(recorder.used_bytes)}B`, recorder.failing);
  }
}

function chart(points, label) {
  const low = Math.min(...points), high = Math.max(...points), span = high - low || 1;
  const at = (value, i) => `${((100 * i) / Math.max(1, points.length - 1)).toFixed(1)},${(19 - (18 * (value - low)) / span).toFixed(1)}`;
  return { line: points.map(at).join(" "), label: `${label}: from ${shortNumber(low)} to ${shortNumber(high)}` };
}

function makeVariableRow(entry) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.append(line);
  const cells = ["number", "", "age", "bytes", "number", "number"].map((className) => element("td", { className }));
  cells[1].append(svg);
  entry.row = { node: element("tr", {}, element("th", { scope: "row", textContent: entry.name }), ...cells), cells, svg, line };
}

function drawVariable(entry) {
  if (!entry.row) makeVariableRow(entry);
  const { cells, svg, line } = entry.row;
  const rate = entry.bins.slice(-5).reduce((sum, n) => sum + n, 0) / 5;
  const { line: points, label } = entry.points.length > 1 ? chart(entry.points, "values") : chart(entry.bins, "changes a second");
  setText(cells[0], shortNumber(rate));
  if (line.getAttribute("points") !== points) line.setAttribute("points", points);
  svg.setAttribute("aria-label", label);
  setText(cells[2], age(entry.lastMs));
  setText(cells[3], entry.value === null ? "" : String(entry.value));
  setText(cells[4], shortNumber(entry.events));
  setText(cells[5], shortNumber(entry.size));
  return entry.row.node;
}

function drawVariables() {
  const wanted = [...state.variables.values()].filter((entry) => state.filter(entry.name));
  const shown = wanted.slice(0, VARIABLES_MAX).map(drawVariable), body = $("variables");
  if (shown.length !== body.children.length || shown.some((node, i) => body.children[i] !== node)) body.replaceChildren(...shown);
  setText($("more-variables"), wanted.length > VARIABLES_MAX ? `${wanted.length - VARIABLES_MAX} more: narrow the filter.` : "");
}

function drawEvents() {
  if (state.paused) {
    setText($("held"), state.fresh.length ? `paused, ${state.fresh.length}${state.fresh.length >= ROWS_MAX ? " or more" : ""} waiting` : "paused");
    return;
  }
  setText($("held"), "");
  if (!state.fresh.length) return;
  const rows = state.fresh.slice(-ROWS_MAX).map(({ name, make }) => ({ name, node: make() })).reverse();
  state.fresh = [];
  rows.forEach(filterRow);
  $("rows").prepend(...rows.map((row) => row.node));
  state.rows = [...rows, ...state.rows];
  state.rows.splice(ROWS_MAX).forEach((row) => row.node.remove());
  $("no-events").hidden = true;
}

function filterRow(row) {
  row.node.hidden = row.name !== null && !state.filter(row.name);
}

function everySecond() {
  state.rate = 0.5 * state.rate + 0.5 * state.bin;
  if (state.rate < 0.05) state.rate = 0;
  state.bin = 0;
  for (const entry of state.variables.values()) {
    entry.bins.push(entry.bin);
    entry.bins.shift();
    entry.bin = 0;
  }
}

function draw() {
  drawHealth();
  drawVariables();
  drawEvents();
}

/* --- controls ------------------------------------------------------------------------------------------------- */

function makeFilter(text) {
  if (!text) return () => true;
  if (!/[*?]/.test(text)) return (name) => name.toLowerCase().includes(text.toLowerCase());
  const pattern = text.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  const expression = new RegExp(`^${pattern}$`, "su");
  return (name) => expression.test(name);
}

function setPaused(paused) {
  state.paused = paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  setText($("pause"), paused ? "Go on" : "Pause");
  draw();
}

function clearEvents() {
  state.rows = [];
  state.fresh = [];
  $("rows").replaceChildren();
  $("no-events").hidden = false;
}

function listen() {
  $("login").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN_KEY, $("token").value.trim());
    $("token").value = "";
    reconnectNow();
  });
  window.addEventListener("hashchange", () => { if (location.hash) begin(); });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("filter").addEventListener("input", () => {
    state.filter = makeFilter($("filter").value.trim());
    state.rows.forEach(filterRow);
    draw();
  });
  $("pause").addEventListener("click", () => setPaused(!state.paused));
  $("clear").addEventListener("click", clearEvents);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "INPUT") return;
    if (event.key === "/") {
      event.preventDefault();
      $("filter").focus();
    } else if (event.key === "p") {
      setPaused(!state.paused);
    }
  });
}

async function begin() {
  try { await takeCode(); } catch { /* nobody answers: connect() says so */ }
  reconnectNow();
}

listen();
begin();
pollStatus();
pollRegions();
setInterval(draw, DRAW_MS);
setInterval(everySecond, 1000);
