/*
 * who.js -- who wrote, and how sure that is.
 *
 * Three answers look different without any colour: proof is upright with a solid mark, a guess is slanted with a dashed
 * one and says "perhaps", what is not known says why.
 */
"use strict";

const REASONS = {
  kernel: "a system call wrote it",
  throttled: "the budget for authors was used up (attribution_budget)",
  "ring-full": "too many writes at once: the note of this one was dropped",
  off: "authors are turned off",
  traced: "a debugger traces the process",
  blocked: "the writing thread blocked the signal",
  polling: "found by comparing: nobody saw the write",
  unavailable: "this machine does not tell authors; python -m memwatch doctor says why",
  own: "memwatch's own code had opened the page",
  foreign: "another handler took the signal",
  unknown: "no note explains this change",
};

const SURE = {
  exact: {
    word: "proof",
    text: "Proof: this store, or this system call, wrote the bytes that changed. A later store in the same window may have written the final value.",
  },
  page: {
    word: "guess",
    text: "A guess: this code wrote to the same memory page, elsewhere on it or at another time. It is often not who made this change.",
  },
  kernel: {
    word: "kernel",
    text: "A system call wrote this: the kernel stored it for a thread of the process. Which one is not told.",
  },
  none: { word: "unknown", text: "Nobody is known to have written this." },
};

function baseName(path) {
  return String(path ?? "").replace(/^.*[\\/]/, "");
}

/* {function, place, path, native} of a writer; null where nothing is known. */
function placeOf(writer) {
  if (!writer) return null;
  const frame = writer.frames && writer.frames.length ? writer.frames[0] : writer;
  const call = writer.syscall ?? writer.system_call ?? null;
  if (!frame.function && !frame.file && !writer.symbol && !call) return null;
  const symbol = writer.symbol ? `${writer.symbol} in ${baseName(writer.object)}` : "";
  const at = frame.file
    ? `${baseName(frame.file)}${frame.line ? `:${frame.line}` : ""}`
    : baseName(writer.object);
  return {
    name: frame.function || writer.symbol || at,
    at: frame.function || writer.symbol ? at : "",
    path: frame.file ? `${frame.file}${frame.line ? `:${frame.line}` : ""}` : (writer.object ?? ""),
    native: symbol,
    call: call ? String(typeof call === "object" ? (call.name ?? "") : call) : "",
  };
}

/* What there is to say of an event's author: {sure, place, reason, thread}. */
function authorOf(event) {
  const where = event.where,
    exact = where.attribution === "exact";
  const place =
    placeOf(exact || where.attribution === "none" ? where : where.page_writer) ?? placeOf(where.page_writer);
  const guess = !exact && (where.page_writer || (place && where.attribution === "page"));
  const writer = exact || !where.page_writer ? where : where.page_writer;
  return {
    sure: exact ? "exact" : guess ? "page" : "none",
    place,
    reason: REASONS[where.reason] ?? where.reason ?? "no note explains this change",
    kernel: where.reason === "kernel",
    thread:
      writer.thread_name || writer.thread_id
        ? `${writer.thread_name ?? ""} ${writer.thread_id ?? ""}`.trim()
        : "",
  };
}

/* One word for each author, by which variables are sorted and shares are counted. */
function authorName(event) {
  const { sure, place, kernel } = authorOf(event);
  if (place)
    return `${place.name}${place.at ? ` (${place.at})` : ""}${place.call ? ` by ${place.call}()` : ""}`;
  return kernel ? "a system call" : sure === "none" ? "unknown" : "somebody";
}

function sureMark(sure) {
  return element("span", { className: `sure ${sure}`, title: SURE[sure].text, textContent: SURE[sure].word });
}

/* Two short lines: the function; file:line and how sure. */
function authorNodes(event) {
  const { sure, place, reason, kernel } = authorOf(event);
  if (!place) {
    return [
      element("span", { className: "who none", textContent: kernel ? "a system call" : "unknown" }),
      element(
        "small",
        {},
        kernel
          ? sureMark("kernel")
          : element("span", { className: "reason", title: reason, textContent: reason }),
      ),
    ];
  }
  const name = element(
    "span",
    { className: `who ${sure}`, title: place.path },
    sure === "page" ? "perhaps " : "",
    element("b", { textContent: place.name }),
  );
  if (place.call) name.append(" by ", element("code", { textContent: `${place.call}()` }));
  const at = element("span", { className: "at", title: place.path, textContent: place.at });
  return [name, element("small", {}, sureMark(sure), " ", at)];
}

function framesNode(frames) {
  return element(
    "ol",
    { className: "frames" },
    ...frames.map((frame) =>
      element(
        "li",
        {},
        element("b", { textContent: frame.function ?? "?" }),
        " ",
        element("span", {
          title: frame.file ?? "",
          textContent: frame.file ? `${frame.file}:${frame.line ?? "?"}` : "",
        }),
      ),
    ),
  );
}
