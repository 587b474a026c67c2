/*
 * state.js -- what the page knows: variables and the newest events. Draws nothing.
 */
"use strict";

const EVENTS_MAX = 1000;

const state = {
  epoch: null,
  seq: null,
  status: null,
  live: false,
  variables: new Map(), // key -> entry
  listing: 0, // grows when a variable comes or goes
  changed: new Set(), // entries that may have another place in a list than when it was drawn
  lastMs: 0, // the last change of any
  events: [], // oldest first: events, and notes {note, bad, time_ms, id}
  version: 0, // grows with every event
  missed: 0,
  received: 0,
  rate: 0,
  lastReceived: 0,
  paused: false,
  waiting: 0,
  notes: 0,
  filter: () => true,
};

/* A hub's events name their process; names are unique in one process only. */
function keyOf(item) {
  return item.process === undefined ? item.name : `${item.process}\u0000${item.name}`;
}

function variableOf(item) {
  const key = keyOf(item);
  let entry = state.variables.get(key);
  if (!entry) {
    entry = {
      key,
      name: item.name,
      id: item.region_id,
      size: 0,
      events: 0,
      lastSeq: 0,
      lastMs: 0,
      value: undefined,
      last: null,
      curve: new Curve(),
      rate: 0,
      writer: "",
    };
    state.variables.set(key, entry);
    state.listing++;
  }
  return entry;
}

function setLastMs(entry, ms) {
  entry.lastMs = ms;
  state.lastMs = Math.max(state.lastMs, ms);
}

function takeLast(entry, event) {
  entry.last = event;
  entry.lastSeq = Math.max(entry.lastSeq, event.seq);
  setLastMs(entry, Math.max(entry.lastMs, event.time_ms));
  entry.writer = authorName(event);
}

function takeEvent(event) {
  const entry = variableOf(event),
    fresh = event.seq > entry.lastSeq;
  state.seq = event.seq;
  state.received++;
  state.version++;
  if (fresh) entry.events++;
  if (fresh || !entry.last || entry.last.seq <= event.seq) takeLast(entry, event);
  if ("new_number" in event && fresh) entry.value = event.new_number;
  entry.id = event.region_id;
  state.changed.add(entry);
  if (event.time_ms > Date.now() - SPAN_MS) {
    entry.curve.add(event.time_ms, asNumber(event.new_number), 1, asNumber(event.old_number));
  }
  keep(event);
}

function keep(item) {
  state.events.push(item);
  if (state.events.length > EVENTS_MAX + 100) state.events.splice(0, state.events.length - EVENTS_MAX);
  if (state.paused) state.waiting++;
}

function addNote(text, bad) {
  state.version++;
  keep({ note: text, bad, time_ms: Date.now(), id: `note-${++state.notes}` });
}

function takeGap(gap) {
  state.missed += gap.missed;
  state.seq = gap.to;
  addNote(
    `${count(gap.missed, "event")} ${gap.missed === 1 ? "is" : "are"} missing here: gone from the log before this page read them.`,
    true,
  );
}

function forget() {
  state.variables.clear();
  state.changed.clear();
  state.listing++;
  state.lastMs = 0;
  state.seq = null;
  state.epoch = null;
}

function takeRegion(region, now) {
  const entry = variableOf(region);
  entry.id = region.region_id;
  entry.size = region.size;
  entry.format = region.format;
  entry.shape = region.shape;
  entry.values = region.values;
  entry.events = region.ledger.delivered;
  setLastMs(entry, region.last_time_ms);
  state.changed.add(entry);
  if (region.last_seq > entry.lastSeq) entry.lastSeq = region.last_seq;
  if (region.last && (!entry.last || entry.last.seq < region.last.seq)) takeLast(entry, region.last);
  if ("value" in region) {
    entry.value = region.value;
    entry.curve.add(now, asNumber(region.value), 0, NaN);
  }
}

/* --- sorting and filtering ------------------------------------------------------------------------------------ */

const ORDERS = {
  last: (a, b) => b.lastMs - a.lastMs || b.lastSeq - a.lastSeq || (a.name < b.name ? -1 : 1),
  name: (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  rate: (a, b) => b.rate - a.rate || b.lastMs - a.lastMs,
  writer: (a, b) =>
    (a.writer === "") - (b.writer === "") ||
    (a.writer < b.writer ? -1 : a.writer > b.writer ? 1 : b.lastMs - a.lastMs),
};

function makeFilter(text) {
  if (!text) return () => true;
  if (!/[*?]/.test(text)) return (name) => name.toLowerCase().includes(text.toLowerCase());
  const pattern = text
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  const expression = new RegExp(`^${pattern}$`, "su");
  return (name) => expression.test(name);
}

function everySecond() {
  const now = Date.now();
  state.rate = 0.5 * state.rate + 0.5 * (state.received - state.lastReceived);
  if (state.rate < 0.05) state.rate = 0;
  state.lastReceived = state.received;
  for (const entry of state.variables.values()) {
    if (!entry.curve.data.length) continue;
    entry.curve.prune(now);
    const rate = entry.curve.rate(now);
    if (rate !== entry.rate) state.changed.add(entry);
    entry.rate = rate;
  }
}
