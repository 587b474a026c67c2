/*
 * view.js -- one event, one variable: what a click opens.
 *
 * The address says what is open (#/event/7, #/variable/weights), so that links from elsewhere lead there and
 * the browser's Back goes back. A view is built once from what the exporter answers; a variable's is renewed
 * while it changes.
 */
"use strict";

const view = { kind: "", key: "", entry: null, shownSeq: 0, from: null, number: 0 };

function section(title, ...children) {
  return element("section", {}, element("h3", { textContent: title }), ...children);
}

function facts(pairs) {
  const list = element("dl", { className: "facts" });
  for (const [term, value] of pairs) {
    if (value === null || value === undefined || value === "") continue;
    list.append(
      element(
        "div",
        {},
        element("dt", { textContent: term }),
        element("dd", {}, value instanceof Node ? value : spelt(value)),
      ),
    );
  }
  return list;
}

function table(className, heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col", textContent: text })));
  return element(
    "div",
    { className: "wide", tabIndex: 0, role: "region", "aria-label": heads.join(", ") },
    element(
      "table",
      { className },
      element("thead", {}, head),
      element(
        "tbody",
        {},
        ...rows.map((cells) =>
          element(
            "tr",
            {},
            ...cells.map((cell) => element("td", {}, cell instanceof Node ? cell : spelt(cell))),
          ),
        ),
      ),
    ),
  );
}

function link(hash, ...children) {
  return element("a", { href: hash }, ...children);
}

function variableHash(item) {
  return `#/variable/${encodeURIComponent(keyOf(item))}`;
}

/* --- an event ------------------------------------------------------------------------------------------------- */

function writerFacts(writer) {
  const frame = writer.frames.length ? writer.frames[0] : writer;
  return facts([
    ["Function", frame.function],
    ["File", frame.file && `${frame.file}:${frame.line ?? "?"}`],
    [
      "Native code",
      writer.symbol &&
        element("span", {
          title: writer.object ?? "",
          textContent: `${writer.symbol}+${writer.offset ?? 0} in ${baseName(writer.object)}`,
        }),
    ],
    ["Native line", writer.native_file && `${writer.native_file}:${writer.native_line ?? "?"}`],
    ["C library", writer.libc_function && `through ${writer.libc_function}`],
    ["System call", writer.syscall && (writer.syscall.name ?? String(writer.syscall))],
    ["Thread", [writer.thread_name, writer.thread_id].filter(Boolean).join(" ")],
    ["Instruction", writer.fault_ip],
    ["Address", writer.fault_address],
  ]);
}

function writerSection(event) {
  const { sure, reason, kernel } = authorOf(event),
    where = event.where;
  const writer = sure === "page" ? (where.page_writer ?? where) : where;
  const told =
    kernel && sure === "none"
      ? SURE.kernel.text
      : sure === "none"
        ? `Nobody is known to have written this: ${reason}.`
        : SURE[sure].text;
  const box = section(
    "Who wrote it",
    element("p", { className: "author" }, ...authorNodes(event)),
    element("p", { textContent: told }),
  );
  if (sure !== "none" || writer.thread_id || writer.symbol) box.append(writerFacts(writer));
  if (writer.frames.length > 1)
    box.append(element("h4", { textContent: "Called from" }), framesNode(writer.frames));
  return box;
}

function partsSection(event) {
  const parts = partsOf(event);
  if (!parts || (parts.length < 2 && !parts[0].path)) return [];
  return [
    section(
      "What changed",
      table(
        "parts",
        ["Part", "Before", "After"],
        parts.map((part) => [part.path || "value", part.old, part.new]),
      ),
    ),
  ];
}

/* The bytes before and after; of large values by their keys, if they are still kept. */
async function bytesSection(event) {
  let before = bytesOf(event.old),
    after = bytesOf(event.new),
    note = "";
  try {
    if (!before && event.key_old) before = await getBytes(`api/v1/values/${event.key_old}`);
    if (!after && event.key_new) after = await getBytes(`api/v1/values/${event.key_new}`);
  } catch (error) {
    note = error.message;
  }
  before ??= bytesOf(event.old_preview);
  after ??= bytesOf(event.new_preview);
  if (!before && !after)
    return section("Bytes", element("p", { textContent: "The policy of this variable hides its values." }));
  const box = section("Bytes", ...(note ? [element("p", { textContent: note })] : []));
  const changes = event.changes.length ? event.changes : differences(before, after ?? new Uint8Array());
  if (before) box.append(element("h4", { textContent: "Before" }), dump(before, changes));
  if (after) box.append(element("h4", { textContent: "After" }), dump(after, changes));
  return box;
}

function jsonSection(event) {
  const { parts, looked, told, ...plain } = event;
  const text = JSON.stringify(plain, null, 1),
    copy = element("button", { type: "button", textContent: "Copy" });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      setText(copy, "Copied");
    } catch {
      setText(copy, "Copying is not allowed here");
    }
  });
  return element(
    "details",
    {},
    element("summary", { textContent: "As JSON" }),
    copy,
    element(
      "pre",
      { textContent: "", tabIndex: 0, "aria-label": "JSON" },
      spelt(text).replaceAll("\\u000a", "\n"),
    ),
  );
}

async function drawEvent(number) {
  const seq = Number(view.key),
    event = await findEvent(seq);
  if (event) await lookUpValues(event);
  if (number !== view.number) return;
  if (!event) {
    detail(
      `Event ${view.key}`,
      element("p", { textContent: "This event has left the log. A recording keeps events for longer." }),
    );
    return;
  }
  const told = element("p", { className: "headline" }, ...changeNodes(event, true, 4));
  const about = facts([
    [
      "When",
      timeNode(
        event.time_ms,
        `${new Date(event.time_ms).toLocaleDateString("en-CA")} ${clockText(event.time_ms)}`,
      ),
    ],
    ["Variable", link(variableHash(event), nameText(event.name))],
    ["Event", `${event.seq} of epoch ${state.epoch}`],
    ["Changed", event.changed_bytes ? `${count(event.changed_bytes, "byte")} of ${sizeText(event.size)}` : ""],
    ["Found by", event.backend],
    ["Merged", event.merged ? `${count(event.merged, "earlier change")} in this one` : ""],
  ]);
  detail(
    `Event ${event.seq}`,
    told,
    writerSection(event),
    about,
    ...partsSection(event),
    await bytesSection(event),
    jsonSection(event),
  );
}

/* --- what is open --------------------------------------------------------------------------------------------- */

function detail(title, ...children) {
  const scrolled = $("detail-body").scrollTop;
  setText($("detail-title"), title);
  $("detail-body").replaceChildren(...children);
  $("detail-body").scrollTop = view.renewed ? scrolled : 0;
}

async function drawDetail() {
  const number = ++view.number;
  try {
    await (view.kind === "event" ? drawEvent(number) : drawVariableView(number));
  } catch (error) {
    if (number === view.number)
      detail(
        view.kind === "event" ? `Event ${view.key}` : nameText(view.key),
        element("p", { textContent: error.message }),
      );
  }
}

/* Shows what the address says. */
function route() {
  const match = /^#\/(variable|event)\/(.*)$/s.exec(location.hash),
    was = view.kind;
  let key = "";
  try {
    key = match ? decodeURIComponent(match[2]) : "";
  } catch {
    key = match[2];
  }
  Object.assign(view, { kind: match ? match[1] : "", key, entry: null, renewed: false });
  document.body.dataset.open = view.kind;
  $("detail").hidden = !match;
  if (!match) {
    if (was && view.from) view.from.focus();
    return;
  }
  setText($("detail-title"), view.kind === "event" ? `Event ${key}` : nameText(key));
  $("detail-body").replaceChildren(element("p", { textContent: "loading" }));
  if (state.epoch !== null) drawDetail();
  $("detail-title").focus();
}

function openItem(hash, from) {
  view.from = from;
  if (location.hash === hash) route();
  else location.hash = hash;
}

function closeDetail() {
  if (view.kind) history.pushState(null, "", location.pathname);
  route();
}

/* A variable's view follows its changes, not while somebody works in it. */
function renewDetail() {
  if (view.kind !== "variable" || !view.entry || view.entry.lastSeq === view.shownSeq) return;
  if ($("detail-body").contains(document.activeElement) || $("detail-body").matches(":hover")) return;
  view.renewed = true;
  drawDetail();
}
