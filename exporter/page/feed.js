/*
 * feed.js -- the connection.
 *
 * DESIGN. The address that opens the page ends in a one-time code behind the `#`. The page exchanges it for the
 * token, and keeps that in sessionStorage: it belongs to this tab and this port, no other site gets it, and no
 * history holds it. First come the status, the regions and the newest events of the log, so that the page shows
 * what happened before it was opened; then one stream of lines brings what follows.
 */
"use strict";

const TOKEN_KEY = "memwatch-token",
  NEWEST = 500,
  REGIONS_MAX = 20000,
  REGIONS_PAGE = 250,
  VALUE_MAX = 1 << 20;
const STATUS_MS = 2000,
  REGIONS_MS = 5000,
  RETRY_MIN_MS = 500,
  RETRY_MAX_MS = 10000;

const feed = { retryMs: RETRY_MIN_MS, retry: 0, looking: false };

function showConnection(name, text) {
  state.live = name === "live";
  $("connection").dataset.state = name;
  setText($("connection"), text);
}

function showProblem(text) {
  $("problem").hidden = !text;
  setText($("problem"), text);
}

function ask(path, type = "application/json", authorization = `Bearer ${sessionStorage.getItem(TOKEN_KEY)}`) {
  return fetch(path, { headers: { Accept: type, Authorization: authorization } });
}

async function checked(response, path) {
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw Object.assign(new Error(body.error ?? `${path}: ${response.status}`), { status: response.status });
}

async function getJson(path) {
  return (await checked(await ask(path), path)).json();
}

async function getBytes(path) {
  return new Uint8Array(await (await checked(await ask(path, "*/*"), path)).arrayBuffer());
}

/* The code of the address becomes the token. It leaves the address bar first. */
async function takeCode() {
  const code = location.hash.slice(1);
  if (!code || code.startsWith("/")) return;
  history.replaceState(null, "", location.pathname);
  const response = await ask("api/v1/token", "application/json", `Memwatch-Code ${code}`);
  if (response.ok) sessionStorage.setItem(TOKEN_KEY, (await response.json()).token);
}

function reconnectLater() {
  clearTimeout(feed.retry);
  feed.retry = setTimeout(connect, feed.retryMs);
  feed.retryMs = Math.min(feed.retryMs * 2, RETRY_MAX_MS);
}

function reconnectNow() {
  clearTimeout(feed.retry);
  feed.retryMs = RETRY_MIN_MS;
  connect();
}

function showRefusal() {
  const had = sessionStorage.getItem(TOKEN_KEY) !== null;
  showConnection("refused", had ? "token refused" : "no token");
  showProblem(
    had
      ? "The process was started anew with another token: open the address that it gives, or enter the token."
      : "This page needs the token. The address that the process gives opens it once; another browser or tab needs another address, or the token.",
  );
  $("login").hidden = false;
}

/* --- the past ------------------------------------------------------------------------------------------------- */

/* The newest events of the log; the stream goes on where they end. */
async function loadNewest(status) {
  const page = await getJson(`api/v1/events?order=newest&limit=${NEWEST}`);
  page.events.reverse().forEach(takeEvent);
  state.epoch = status.epoch;
  state.seq = page.next;
  state.lastReceived = state.received;
}

async function loadRegions() {
  const listed = new Set(),
    now = Date.now();
  let next = "";
  do {
    const page = await getJson(`api/v1/regions?limit=${REGIONS_PAGE}${next && `&continue=${next}`}`);
    for (const region of page.regions) {
      takeRegion(region, now);
      listed.add(keyOf(region));
    }
    next = page.next;
  } while (next && listed.size < REGIONS_MAX);
  for (const [key, entry] of state.variables) {
    if (next || listed.has(key) || (entry.last && entry.last.time_ms >= now)) continue;
    state.variables.delete(key);
    state.listing++;
  }
  state.version++;
}

/*
 * What changed in items that are too large for an event: from both values, by their keys. One at a time, for events in
 * sight, and of values up to VALUE_MAX: the process has other things to do.
 */
async function lookUpValues(event) {
  if (
    event.looked ||
    feed.looking ||
    !event.key_old ||
    !event.key_new ||
    event.size > VALUE_MAX ||
    partsOf(event)
  )
    return;
  if (!layoutOf(event.format)) return;
  event.looked = feed.looking = true;
  try {
    const before = await getBytes(`api/v1/values/${event.key_old}`),
      after = await getBytes(`api/v1/values/${event.key_new}`);
    event.parts = partsOfStructure(event, [{ offset: 0, before, after }]);
    if (event.parts) event.told = true;
  } catch {
    /* the versions have left the history */
  }
  feed.looking = false;
}

async function findEvent(seq) {
  const kept = state.events.find((event) => event.seq === seq);
  if (kept) return kept;
  const page = await getJson(`api/v1/events?since=${seq - 1}&limit=1`);
  return page.events.find((event) => event.seq === seq) ?? null;
}

/* --- the stream ----------------------------------------------------------------------------------------------- */

function takeReset(reset) {
  if (state.epoch !== null && state.epoch !== reset.epoch) {
    forget();
    addNote("The watcher was opened anew: its numbering begins again.", false);
    loadRegions().catch(() => {
      /* the next poll does */
    });
  }
  state.epoch = reset.epoch;
  state.seq = Math.max(0, reset.oldest - 1);
}

function takeLine(line) {
  const frame = JSON.parse(line);
  if (frame.kind === "gap") takeGap(frame);
  else if (frame.kind === "reset") takeReset(frame);
  else if (frame.kind === "bookmark") state.seq = frame.seq;
  else takeEvent(frame);
}

async function readStream(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    lines.filter(Boolean).forEach(takeLine);
  }
}

async function connect() {
  try {
    const status = await getJson("api/v1/status");
    if (state.epoch !== null && state.epoch !== status.epoch) {
      forget();
      addNote("The watcher was opened anew: its numbering begins again.", false);
    }
    takeStatus(status);
    $("login").hidden = true;
    showProblem("");
    if (state.epoch === null) {
      await loadRegions();
      await loadNewest(status);
    }
    const response = await ask(
      `api/v1/events/stream?since=${state.seq}&epoch=${state.epoch}`,
      "application/x-ndjson",
    );
    await checked(response, "stream");
    feed.retryMs = RETRY_MIN_MS;
    showConnection("live", "live");
    await readStream(response);
    throw new Error("the stream ended");
  } catch (error) {
    if (error.status === 401) showRefusal();
    else showConnection("lost", "no answer, trying again");
    if (error.status !== 401 || sessionStorage.getItem(TOKEN_KEY) !== null) reconnectLater();
  }
}

async function pollStatus() {
  if (state.live) {
    try {
      takeStatus(await getJson("api/v1/status"));
    } catch {
      /* the stream notices the same and tries again */
    }
  }
  setTimeout(pollStatus, STATUS_MS);
}

/* Long lists seldom: the process has other things to do. */
async function pollRegions() {
  try {
    if (state.live) await loadRegions();
  } catch {
    /* as above */
  }
  setTimeout(pollRegions, REGIONS_MS * Math.max(1, Math.ceil(state.variables.size / 500)));
}
