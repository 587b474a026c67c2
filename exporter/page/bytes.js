/*
 * bytes.js -- bytes as they are: a dump of the lines that matter, changed bytes marked.
 */
"use strict";

const LINES_SHOWN = 32,
  LINE = 16;

/* Which lines of a dump: those with changes and their neighbours first, else the beginning. */
function linesOf(length, changes) {
  const n = Math.ceil(length / LINE),
    wanted = new Set();
  for (const [offset, size] of changes) {
    const last = Math.floor((offset + size - 1) / LINE);
    for (let line = Math.floor(offset / LINE) - 1; line <= last + 1 && wanted.size < LINES_SHOWN; line++) {
      if (line >= 0 && line < n) wanted.add(line);
    }
  }
  for (let line = 0; line < n && wanted.size < (changes.length ? 1 : LINES_SHOWN); line++) wanted.add(line);
  return [...wanted].sort((a, b) => a - b);
}

function dump(bytes, changes) {
  const pre = element("pre", { className: "dump", tabIndex: 0, "aria-label": "bytes, changed ones marked" });
  const changed = (i) => changes.some(([offset, size]) => i >= offset && i < offset + size);
  const marked = (i, text) => (changed(i) ? element("mark", { textContent: text }) : text);
  let before = -1;
  for (const line of linesOf(bytes.length, changes)) {
    if (line !== before + 1) pre.append("   ⋯\n");
    before = line;
    pre.append(
      element("span", { className: "offset", textContent: (line * LINE).toString(16).padStart(6, "0") }),
      "  ",
    );
    const end = Math.min(bytes.length, (line + 1) * LINE);
    for (let i = line * LINE; i < (line + 1) * LINE; i++) {
      pre.append(i < end ? marked(i, bytes[i].toString(16).padStart(2, "0")) : "  ", i % 8 === 7 ? "  " : " ");
    }
    for (let i = line * LINE; i < end; i++)
      pre.append(marked(i, bytes[i] >= 32 && bytes[i] < 127 ? String.fromCharCode(bytes[i]) : "·"));
    pre.append("\n");
  }
  if ((before + 1) * LINE < bytes.length) pre.append("   ⋯\n");
  return pre;
}

/* Where two values differ, as [offset, size]. */
function differences(before, after) {
  const found = [];
  for (let i = 0; before && i < Math.max(before.length, after.length) && found.length < 256; i++) {
    if (before[i] === after[i]) continue;
    const last = found[found.length - 1];
    if (last && last[0] + last[1] === i) last[1]++;
    else found.push([i, 1]);
  }
  return found;
}
