/* The hub's live page: who is there, and the merged stream. Names and values are text, and only text. */
"use strict";

const TOKEN_KEY = "memwatch-hub-token",
  ROWS = 500,
  WORKERS_MS = 2000,
  FIRST = 20;
const $ = (id) => document.getElementById(id);
const state = { token: null, paused: false, held: [], workers: [], cursor: null, started: false };

/* What hides or turns text is spelt out. */
const spelt = (text) =>
  String(text).replace(
    /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

function cell(row, text, className) {
  const td = document.createElement("td");
  td.textContent = spelt(text);
  if (className) td.className = className;
  row.append(td);
  return td;
}

function say(sentence) {
  $("problem").hidden = !sentence;
  $("problem").textContent = sentence || "";
}

function connection(name, text) {
  $("connection").dataset.state = name;
  $("connection").textContent = text;
}

async function ask(path, headers) {
  const answer = await fetch(path, {
    cache: "no-store",
    headers: { Authorization: `Bearer ${state.token}`, ...headers },
  });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  const error = new Error(body.error || answer.statusText);
  error.status = answer.status;
  throw error;
}

async function takeToken() {
  const code = location.hash.slice(1);
  if (code) {
    history.replaceState(null, "", "/");
    const answer = await fetch("/api/v1/token", { headers: { Authorization: `Memwatch-Code ${code}` } });
    if (answer.ok) sessionStorage.setItem(TOKEN_KEY, (await answer.json()).token);
  }
  state.token = sessionStorage.getItem(TOKEN_KEY);
}

function login(sentence) {
  say(sentence);
  $("login").hidden = false;
  connection("lost", "needs the token");
}

/* --- workers ---------------------------------------------------------------------------------------------------- */

async function loadWorkers() {
  const { workers } = await (await ask("/api/v1/workers")).json();
  for (const worker of workers) {
    const before = state.workers.find((old) => old.epoch === worker.epoch);
    worker.regions = before ? before.regions : null;
  }
  state.workers = workers;
  await Promise.all(
    workers.map(async (worker) => {
      try {
        worker.regions = (await (await ask(`${worker.path}status`)).json()).regions;
      } catch {
        /* it is gone, or does not answer: the row says so */
      }
    }),
  );
  $("workers").replaceChildren(
    ...workers.map((worker) => {
      const row = document.createElement("tr");
      cell(row, worker.service);
      cell(row, worker.worker);
      cell(row, worker.pid || "", "number");
      cell(
        row,
        Object.entries(worker.labels)
          .map(([name, value]) => `${name}=${value}`)
          .join(" "),
      );
      cell(row, worker.up ? "yes" : "not now");
      cell(row, worker.regions === null ? "" : worker.regions, "number");
      return row;
    }),
  );
}

async function pollWorkers() {
  try {
    await loadWorkers();
  } catch (error) {
    if (error.status === 401) return login(error.message);
  }
  setTimeout(pollWorkers, WORKERS_MS);
}

/* --- events ----------------------------------------------------------------------------------------------------- */

function valueOf(event, side) {
  const number = event[`${side}_number`];
  if (number !== undefined && number !== null) return String(number);
  if (event.elements && event.elements.length)
    return event.elements
      .slice(0, 3)
      .map((each) => `[${each.index}] ${each[side]}`)
      .join(", ");
  const preview = event[`${side}_preview`];
  if (preview === null || preview === undefined) return "…";
  const bytes = atob(preview);
  if (/^[\x20-\x7e]*$/.test(bytes)) return bytes.length > 60 ? `${bytes.slice(0, 60)}…` : bytes;
  return (
    [...bytes.slice(0, 16)].map((c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join(" ") +
    (bytes.length > 16 ? " …" : "")
  );
}

function writer(where) {
  if (!where) return "";
  if (where.attribution === "exact" && where.function)
    return `${where.function} ${where.file.split("/").pop()}:${where.line}`;
  return where.attribution === "exact" ? where.symbol || "native code" : where.reason || where.attribution;
}

function show(event) {
  const row = document.createElement("tr");
  if (event.kind === "gap" || event.kind === "reset") {
    row.className = "gap";
    cell(row, "");
    cell(row, event.service || "");
    cell(row, event.worker || "");
    cell(row, event.kind === "gap" ? `${event.missed} events missed` : "numbers begin again").colSpan = 3;
  } else {
    cell(row, new Date(event.time_ms).toLocaleTimeString());
    cell(row, event.service);
    cell(row, event.worker);
    cell(row, event.name);
    cell(
      row,
      event.kind === "lost" ? "its memory is gone" : `${valueOf(event, "old")} → ${valueOf(event, "new")}`,
    );
    cell(row, writer(event.where)).title = spelt((event.where && event.where.file) || "");
  }
  row.dataset.name = event.name || "";
  row.hidden = !matches(row);
  $("no-events").hidden = true;
  $("events").prepend(row);
  while ($("events").rows.length > ROWS) $("events").lastElementChild.remove();
}

const matches = (row) => row.dataset.name.toLowerCase().includes($("filter").value.toLowerCase());
const take = (event) => (state.paused ? state.held.push(event) > ROWS && state.held.shift() : show(event));

/* What was written before the page was opened: the newest of each worker. */
async function loadNewest() {
  const found = await Promise.all(
    state.workers.map(async (worker) => {
      try {
        const { events } = await (await ask(`${worker.path}events?order=newest&limit=${FIRST}`)).json();
        return events.map((event) => ({ ...event, service: worker.service, worker: worker.worker }));
      } catch {
        return [];
      }
    }),
  );
  found
    .flat()
    .sort((a, b) => a.time_ms - b.time_ms)
    .forEach(show);
}

async function follow() {
  for (;;) {
    try {
      const query = state.cursor ? `?since=${state.cursor.seq}&epoch=${state.cursor.epoch}` : "";
      const answer = await ask(`/api/v1/events/stream${query}`);
      connection("live", "live");
      say("");
      await read(answer.body.getReader());
    } catch (error) {
      if (error.status === 401) return login(error.message);
    }
    connection("lost", "lost, trying again");
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function read(reader) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const id = /^id: (.*)-(\d+)$/m.exec(part),
        data = /^data: (.*)$/m.exec(part);
      if (id) state.cursor = { epoch: id[1], seq: id[2] };
      if (data) take(JSON.parse(data[1]));
    }
  }
}

/* --- the page --------------------------------------------------------------------------------------------------- */

$("filter").addEventListener("input", () => {
  for (const row of $("events").rows) row.hidden = !matches(row);
});
$("controls").addEventListener("submit", (event) => event.preventDefault());
$("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", String(state.paused));
  $("pause").textContent = state.paused ? "Resume" : "Pause";
  if (!state.paused) state.held.splice(0).forEach(show);
});
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN_KEY, $("token").value);
  location.reload();
});

async function start() {
  await takeToken();
  if (state.token === null) return login("Open the address that the hub printed, or type its token.");
  try {
    await loadWorkers();
    await loadNewest();
  } catch (error) {
    if (error.status === 401) return login(error.message);
  }
  setTimeout(pollWorkers, WORKERS_MS);
  follow();
}

start();
