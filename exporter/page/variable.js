/*
 * variable.js -- one variable: its values over time, who writes it, who changed each part last, what it held at a time.
 */
"use strict";

function sharesSection(events) {
  const shares = new Map();
  for (const event of events) {
    const name = authorName(event),
      sure = authorOf(event).sure,
      key = `${sure} ${name}`;
    const share = shares.get(key) ?? { name, sure, n: 0, event };
    share.n++;
    shares.set(key, share);
  }
  const rows = [...shares.values()]
    .sort((a, b) => b.n - a.n)
    .slice(0, 12)
    .map(({ name, sure, n, event }) => {
      const percent = Math.round((100 * n) / events.length),
        place = authorOf(event).place;
      const bar = svg(
        "svg",
        { viewBox: "0 0 100 8", preserveAspectRatio: "none", class: `share ${sure}`, "aria-hidden": "true" },
        svg("rect", { width: String(percent), height: "8" }),
      );
      const who = element("span", {
        className: `who ${sure}`,
        title: place ? place.path : "",
        textContent: (sure === "page" ? "perhaps " : "") + name,
      });
      return [
        who,
        sureMark(sure === "none" && authorOf(event).kernel ? "kernel" : sure),
        bar,
        `${percent} %`,
        count(n, "change"),
      ];
    });
  return section(
    `Who writes it (last ${count(events.length, "change")})`,
    table("shares", ["Who", "How sure", "Share", "", "Changes"], rows),
  );
}

/* Names for the parts of a variable: part(i) begins at offset(i). Null where only bytes can be named. */
function partsOfVariable(entry, event) {
  const shape = event?.shape ?? entry.shape ?? [],
    layout = layoutOf(event?.format ?? entry.format);
  if (!layout || entry.size % layout.size) return null;
  if (shape.length > 1 && !event) return null; // in which order the items lie, only an event tells
  const n = layout.leaves.length,
    index = (item) => itemIndex(item, event ?? { shape });
  return {
    size: (i) => layout.leaves[i % n].size,
    offset: (i) => Math.floor(i / n) * layout.size + layout.leaves[i % n].offset,
    count: (entry.size / layout.size) * n,
    name: (i) => (shape.length ? `[${index(Math.floor(i / n)).join(", ")}]` : "") + layout.leaves[i % n].path,
  };
}

/* Runs of bytes as runs of parts: what changed a part last is the newest that changed any of its bytes. */
function runsOfParts(parts, runs) {
  const found = [];
  let at = 0;
  for (let i = 0; i < parts.count && at < runs.length; i++) {
    const start = parts.offset(i),
      end = start + parts.size(i);
    while (at < runs.length && runs[at].offset + runs[at].size <= start) at++;
    let newest = null;
    for (let k = at; k < runs.length && runs[k].offset < end; k++)
      if (!newest || (runs[k].seq ?? 0) > (newest.seq ?? 0)) newest = runs[k];
    const last = found[found.length - 1];
    if (!newest) break;
    if (last && last.run.seq === newest.seq) last.end = i;
    else found.push({ run: newest, start: i, end: i });
  }
  return found.map(({ run, start, end }) => [
    start === 0 && end === parts.count - 1
      ? "all of it"
      : start === end
        ? parts.name(start)
        : `${parts.name(start)} to ${parts.name(end)}`,
    run,
  ]);
}

function blameSection(entry, event, runs) {
  const parts = partsOfVariable(entry, event);
  const named = parts
    ? runsOfParts(parts, runs)
    : runs.map((run) => [`bytes ${run.offset} to ${run.offset + run.size - 1}`, run]);
  const rows = named.slice(0, 64).map(([text, run]) => {
    if (!run.seq) return [text, "not changed since it is watched, or before what is kept", "", ""];
    const holder = element("span", {}, ...authorNodes(run));
    return [text, holder, timeNode(run.time_ms), link(`#/event/${run.seq}`, `event ${run.seq}`)];
  });
  return section("Who changed each part last", table("blame", ["Part", "Who", "When", "Event"], rows));
}

const KINDS = {
  b: "int8",
  B: "uint8",
  h: "int16",
  H: "uint16",
  i: "int32",
  I: "uint32",
  q: "int64",
  Q: "uint64",
  l: "int64",
  L: "uint64",
  e: "float16",
  f: "float32",
  d: "float64",
  g: "long double",
  "?": "bool",
  c: "bytes",
  s: "bytes",
  Zf: "complex64",
  Zd: "complex128",
};

function kindText(format, shape) {
  const layout = layoutOf(format),
    kind = KINDS[(format ?? "").replace(/^[@=<>!]/, "")];
  const item =
    kind ??
    (layout && layout.leaves.length > 1
      ? `structure of ${count(layout.leaves.length, "field")}`
      : (format ?? ""));
  return shape.length ? `${shape.join(" × ")} ${item || "bytes"}` : item;
}

function valueText(entry, event, bytes) {
  const layout = layoutOf(event?.format ?? entry.format);
  if (!layout || bytes.length % layout.size) return bytes.length && isText(bytes) ? textOf(bytes) : "";
  const shown = [],
    n = bytes.length / layout.size;
  for (let item = 0; item < n && shown.length < 24; item++) {
    for (const leaf of layout.leaves.slice(0, 24)) {
      const at = n > 1 ? `[${item}]` : "";
      shown.push(
        `${at + leaf.path}${at || leaf.path ? " = " : ""}${readLeaf(leaf, bytes, item * layout.size)}`,
      );
    }
  }
  return shown.slice(0, 24).join("\n") + (n * layout.leaves.length > 24 ? "\n…" : "");
}

/* The slider: what the variable held at a time. */
function valueSection(entry, events) {
  const start = events.length ? events[events.length - 1].time_ms - 1 : Date.now() - 60000,
    end = Date.now();
  const slider = element("input", { type: "range", min: "0", max: "1000", value: "1000", id: "value-at" });
  const told = element("output", { htmlFor: "value-at" }),
    shown = element("div", { "aria-live": "polite" });
  let asked = 0,
    timer = 0,
    newest = null;
  const show = async () => {
    const own = ++asked,
      at = Math.round(start + ((end - start) * Number(slider.value)) / 1000),
      now = slider.value === "1000";
    setText(told, now ? "now" : clockText(at));
    slider.setAttribute("aria-valuetext", told.textContent);
    try {
      const bytes = await getBytes(`api/v1/regions/${entry.id}/value${now ? "" : `?time_ms=${at}`}`);
      if (own !== asked) return;
      newest = now ? bytes : newest;
      const changes = now ? [] : differences(newest, bytes),
        text = valueText(entry, entry.last, bytes);
      shown.replaceChildren(
        ...(text
          ? [
              element(
                "pre",
                { className: "value", tabIndex: 0, "aria-label": "value" },
                spelt(text).replaceAll("\\u000a", "\n"),
              ),
            ]
          : []),
        element("p", {
          className: "soft",
          textContent: changes.length ? "Marked: what is different now." : "",
        }),
        dump(bytes, changes),
      );
    } catch (error) {
      if (own === asked) shown.replaceChildren(element("p", { textContent: error.message }));
    }
  };
  slider.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(show, 80);
  });
  show();
  return section(
    "Value at",
    element(
      "div",
      { className: "slider" },
      element("label", { htmlFor: "value-at", textContent: clockText(start) }),
      slider,
      told,
    ),
    shown,
  );
}

function historyChart(entry, events) {
  const points = [...events].reverse().map((event) => {
    const value = asNumber(event.new_number);
    return [event.time_ms, value, value, value, 1];
  });
  const now = Date.now(),
    oldest = points.length ? points[0][0] : now - SPAN_MS;
  const before = events.length ? asNumber(events[events.length - 1].old_number) : NaN;
  const spanned = Math.max(now - oldest, 10000);
  return section("Over time", bigChart(points, before, now - spanned * 1.02, now));
}

function historySection(events, next) {
  const rows = events
    .slice(0, 100)
    .map((event) => [
      link(`#/event/${event.seq}`, String(event.seq)),
      timeNode(event.time_ms),
      element("span", {}, ...changeNodes(event, false, 4)),
      element("span", {}, ...authorNodes(event)),
    ]);
  return section(
    "History",
    table("history", ["Event", "When", "Change", "Who"], rows),
    element("p", {
      className: "soft",
      textContent: next || events.length > 100 ? "Older ones are kept, too: /api/v1/regions/ID/history." : "",
    }),
  );
}

/* Events of the variable, newest first: from the history, else from what the page has. */
async function eventsOf(entry) {
  const known = state.events
    .filter((event) => event.name === entry.name && keyOf(event) === entry.key)
    .reverse();
  try {
    const answer = await getJson(`api/v1/regions/${entry.id}/history?limit=200`);
    if (answer.events.length >= Math.min(known.length, 200)) return [answer.events, answer.next];
  } catch {
    /* a name without bytes has no history */
  }
  return [known.length || !entry.last ? known : [entry.last], null];
}

async function drawVariableView(number) {
  const entry = state.variables.get(view.key);
  if (!entry) {
    detail(view.key, element("p", { textContent: "No variable of this name is watched now." }));
    return;
  }
  view.entry = entry;
  view.shownSeq = entry.lastSeq;
  const [events, next] = await eventsOf(entry),
    last = events[0] ?? entry.last;
  const blame = await getJson(`api/v1/regions/${entry.id}/blame`).catch(() => null);
  if (number !== view.number) return;
  const told = last
    ? element("p", { className: "headline" }, ...changeNodes(last, true, 4))
    : element("p", { textContent: "Not changed since it is watched." });
  const about = facts([
    ["Value", entry.value === undefined ? "" : numberText(entry.value)],
    ["Last change", entry.lastMs ? timeNode(entry.lastMs) : "never"],
    ["Changes", NUMBER.format(entry.events)],
    ["Size", sizeText(entry.size)],
    ["Holds", kindText(last?.format ?? entry.format, entry.shape ?? [])],
    ["Values", entry.values],
  ]);
  const parts = [told, ...(last ? [element("p", { className: "author" }, ...authorNodes(last))] : []), about];
  if (events.length) parts.push(historyChart(entry, events), sharesSection(events));
  if (blame && blame.runs.length) parts.push(blameSection(entry, last, blame.runs));
  if (entry.size && entry.values !== "none" && entry.values !== "hash") parts.push(valueSection(entry, events));
  if (events.length) parts.push(historySection(events, next));
  detail(nameText(entry.name), ...parts);
}
