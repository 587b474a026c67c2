/*
 * decode.js -- what changed, from the bytes of an event.
 *
 * The server decodes numbers and elements of arrays. Structures come with their format, as Python's buffer protocol
 * writes it ("T{<i:timeout_ms:<d:rate_limit:}"), and are decoded here. A change is a list of parts: {path, old, new}.
 */
"use strict";

const PARTS_MAX = 64,
  FIELDS_MAX = 4096;

/* Size, and how a DataView reads it. Without a standard size the machine's own is taken: 8 bytes for l, L, n, N, P. */
const CODES = {
  b: [1, "getInt8"],
  B: [1, "getUint8"],
  h: [2, "getInt16"],
  H: [2, "getUint16"],
  i: [4, "getInt32"],
  I: [4, "getUint32"],
  q: [8, "getBigInt64"],
  Q: [8, "getBigUint64"],
  l: [8, "getBigInt64"],
  L: [8, "getBigUint64"],
  n: [8, "getBigInt64"],
  N: [8, "getBigUint64"],
  P: [8, "getBigUint64"],
  e: [2, "half"],
  f: [4, "getFloat32"],
  d: [8, "getFloat64"],
  g: [16, "bytes"],
  "?": [1, "bool"],
  c: [1, "char"],
  s: [1, "char"],
  p: [1, "char"],
  x: [1, "pad"],
  w: [4, "char32"],
  u: [2, "char16"],
  Zf: [8, "bytes"],
  Zd: [16, "bytes"],
  O: [8, "bytes"],
  X: [8, "bytes"],
  "&": [8, "getBigUint64"],
};
const STANDARD = { l: [4, "getInt32"], L: [4, "getUint32"] };

function bytesOf(base64) {
  return base64 === null || base64 === undefined ? null : Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

/* Reads a format; throws where it is none that is known. Items: {offset, size, path, reader, little, fields}. */
class Format {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.mode = "@";
    this.top = this.items("");
    if (this.at !== text.length) throw new Error("not a format");
  }

  number() {
    const digits = /^\d+/.exec(this.text.slice(this.at));
    this.at += digits ? digits[0].length : 0;
    return digits ? Number(digits[0]) : null;
  }

  shape() {
    if (this.text[this.at] !== "(") return [];
    const end = this.text.indexOf(")", this.at),
      inside = this.text.slice(this.at + 1, end);
    this.at = end + 1;
    return inside.split(",").map(Number);
  }

  name() {
    if (this.text[this.at] !== ":") return "";
    const end = this.text.indexOf(":", this.at + 1),
      name = this.text.slice(this.at + 1, end);
    this.at = end + 1;
    return name;
  }

  modes() {
    while ("@=<>!^".includes(this.text[this.at] ?? "none")) this.mode = this.text[this.at++];
  }

  /* One item without its place: {size, align, reader, fields}. */
  item() {
    this.modes();
    const start = this.at;
    if (this.text.startsWith("T{", start)) {
      this.at += 2;
      const fields = this.items("}");
      this.at++;
      return fields;
    }
    if (this.text[start] === "&") {
      this.at++;
      this.item();
      return { size: 8, align: 8, reader: "getBigUint64" };
    }
    const code = this.text[start] === "Z" ? this.text.slice(start, start + 2) : this.text[start];
    this.at += code ? code.length : 0;
    const known = (!"@^".includes(this.mode) && STANDARD[code]) || CODES[code];
    if (!known) throw new Error("not a format");
    return { size: known[0], align: known[0], reader: known[1] };
  }

  items(end) {
    const fields = [];
    let offset = 0,
      align = 1;
    for (this.modes(); this.at < this.text.length && this.text[this.at] !== end; this.modes()) {
      const shape = this.shape(),
        repeat = this.number(),
        item = this.item(),
        little = ![">", "!"].includes(this.mode);
      let dims = repeat === null ? shape : [...shape, repeat];
      if (this.mode === "@") offset = Math.ceil(offset / item.align) * item.align;
      align = this.mode === "@" ? Math.max(align, item.align) : align;
      const name = this.name(),
        n = dims.reduce((product, dim) => product * dim, 1);
      const text = item.reader && item.reader.startsWith("char") && dims.length > 0;
      const size = text ? item.size * dims[dims.length - 1] : item.size;
      if (text) dims = dims.slice(0, -1);
      if (item.reader !== "pad") fields.push({ ...item, size, name, offset, dims, little });
      offset += item.size * n;
    }
    return { size: this.mode === "@" && end ? Math.ceil(offset / align) * align : offset, align, fields };
  }
}

const formats = new Map();

/* The leaves of one item of this format, [{offset, size, path, reader, little}], and its size; null where unknown. */
function layoutOf(text) {
  if (!text) return null;
  if (!formats.has(text)) {
    if (formats.size > 1000) formats.clear();
    try {
      const { size, fields } = new Format(text).top,
        leaves = [];
      addLeaves(leaves, fields, "", 0);
      formats.set(text, size > 0 && leaves.length ? { size, leaves } : null);
    } catch {
      formats.set(text, null);
    }
  }
  return formats.get(text);
}

function addLeaves(leaves, fields, path, start) {
  for (const field of fields) {
    const n = field.dims.reduce((product, dim) => product * dim, 1);
    for (let i = 0; i < n && leaves.length < FIELDS_MAX; i++) {
      const index = field.dims.length ? `[${indexOf(i, field.dims).join(", ")}]` : "";
      const own = path + (field.name ? `.${field.name}` : "") + index,
        offset = start + field.offset + i * field.size;
      if (field.fields) addLeaves(leaves, field.fields, own, offset);
      else leaves.push({ offset, size: field.size, path: own, reader: field.reader, little: field.little });
    }
  }
}

function indexOf(item, dims) {
  const index = [];
  for (let i = dims.length - 1; i >= 0; i--) {
    index.unshift(item % dims[i]);
    item = Math.floor(item / dims[i]);
  }
  return index;
}

/* The place of an item in an event's shape. */
function itemIndex(item, event) {
  return event.fortran_order ? indexOf(item, [...event.shape].reverse()).reverse() : indexOf(item, event.shape);
}

function halfOf(bits) {
  const sign = bits & 0x8000 ? -1 : 1,
    exponent = (bits >> 10) & 31,
    fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

function textOf(bytes) {
  const end = bytes.indexOf(0);
  return `'${Array.from(end < 0 ? bytes : bytes.subarray(0, end), (b) =>
    b >= 32 && b < 127 ? String.fromCharCode(b) : `\\x${b.toString(16).padStart(2, "0")}`,
  ).join("")}'`;
}

/* A leaf's value as text. `bytes` begin with the item. */
function readLeaf(leaf, bytes, start) {
  const part = bytes.subarray(start + leaf.offset, start + leaf.offset + leaf.size);
  const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
  switch (leaf.reader) {
    case "bool":
      return part[0] ? "True" : "False";
    case "char":
      return textOf(part);
    case "char16":
      return `'${new TextDecoder(leaf.little ? "utf-16le" : "utf-16be").decode(part).replace(/\0.*$/s, "")}'`;
    case "char32":
      return textOf(part.filter((_, i) => i % 4 === (leaf.little ? 0 : 3)));
    case "half":
      return numberText(halfOf(view.getUint16(0, leaf.little)));
    case "bytes":
      return Array.from(part, (b) => b.toString(16).padStart(2, "0")).join("");
    case "getFloat32":
      return numberText(Number(view.getFloat32(0, leaf.little).toPrecision(7)));
    default:
      return numberText(
        typeof view[leaf.reader](0, leaf.little) === "bigint"
          ? String(view[leaf.reader](0, leaf.little))
          : view[leaf.reader](0, leaf.little),
      );
  }
}

/* --- changes -------------------------------------------------------------------------------------------------- */

/* What is known of the values: their beginning, and of large ones the first items that changed behind it. */
function piecesOf(event) {
  const before = bytesOf(event.old ?? event.old_preview),
    after = bytesOf(event.new ?? event.new_preview);
  const rest = (event.excerpt ?? []).map(([offset, old, now]) => ({
    offset,
    before: bytesOf(old),
    after: bytesOf(now),
  }));
  return before && after ? [{ offset: 0, before, after }, ...rest] : rest;
}

function partsOfStructure(event, pieces = piecesOf(event)) {
  const layout = layoutOf(event.format),
    found = { parts: [], last: -1 };
  if (layout) for (const piece of pieces) addPartsOfPiece(found, event, layout, piece);
  return found.parts.length ? found.parts : null;
}

/* A piece begins with an item. */
function addPartsOfPiece(found, event, layout, { offset: begin, before, after }) {
  const n = Math.min(before.length, after.length),
    array = event.shape.length > 0 && event.size > layout.size;
  for (const [offset, length] of event.changes) {
    const end = Math.min(offset + length, begin + n);
    for (let item = Math.floor(Math.max(offset, begin) / layout.size); item * layout.size < end; item++) {
      const start = item * layout.size - begin;
      for (let i = 0; i < layout.leaves.length && found.parts.length < PARTS_MAX; i++) {
        const leaf = layout.leaves[i],
          at = start + leaf.offset,
          place = item * layout.leaves.length + i;
        const isOutside = begin + at + leaf.size <= offset || begin + at >= offset + length;
        if (place <= found.last || at + leaf.size > n || isOutside) continue;
        const old = readLeaf(leaf, before, start),
          now = readLeaf(leaf, after, start);
        found.last = place;
        if (old === now && !before.subarray(at, at + leaf.size).some((b, k) => b !== after[at + k])) continue;
        const path = (array ? `[${itemIndex(item, event).join(", ")}]` : "") + leaf.path;
        found.parts.push({ path, old, new: now });
      }
    }
  }
}

function partOfElement(item) {
  const index = item.index && item.index.length ? `[${item.index.join(", ")}]` : "";
  const [old, now] = pairText(item.old, item.new);
  return { path: index + (item.field ? `.${item.field}` : ""), old, new: now };
}

function isText(bytes) {
  return bytes.every((b) => b === 0 || (b >= 32 && b < 127)) && bytes.some((b) => b !== 0);
}

/* What an object's name held and holds, as Python writes it; only adapters send such text. */
function partOfText(event, before, after) {
  const text = (bytes) => (bytes ? new TextDecoder().decode(bytes) : "—");
  return event.changes.length || event.format ? null : [{ path: "", old: text(before), new: text(after) }];
}

/* The parts of a change that can be named, or null; kept with the event. */
function partsOf(event) {
  if (event.parts !== undefined) return event.parts;
  let parts = null;
  if ("new_number" in event) parts = [partOfElement({ old: event.old_number, new: event.new_number })];
  else if (event.elements && event.elements.length) parts = event.elements.map(partOfElement);
  else if (event.new_hash) parts = [{ path: "", old: `hash ${event.old_hash}`, new: `hash ${event.new_hash}` }];
  else {
    const before = bytesOf(event.old ?? event.old_preview),
      after = bytesOf(event.new ?? event.new_preview);
    parts = partsOfStructure(event) ?? (before || after ? partOfText(event, before, after) : null);
  }
  event.parts = parts;
  return parts;
}

/* Bytes from `start` to `end`, changed ones marked; `asText`: as characters. */
function markedBytes(bytes, changed, start, end, asText) {
  const code = element("code");
  if (start > 0) code.append("…");
  for (let i = start; i < end; i++) {
    const text = asText
      ? bytes[i] === 0
        ? "·"
        : String.fromCharCode(bytes[i])
      : bytes[i].toString(16).padStart(2, "0");
    code.append(changed(i) ? element("mark", { textContent: text }) : text);
    if (!asText && i + 1 < end) code.append(" ");
  }
  if (end < bytes.length) code.append("…");
  return code;
}

const BYTES_SHOWN = 12;

/* Where no part can be named: the bytes around the first change, or where they are if they are not at hand. */
function bytesChange(event) {
  let before = bytesOf(event.old ?? event.old_preview),
    after = bytesOf(event.new ?? event.new_preview),
    begin = 0;
  if (!before && !after && !event.excerpt)
    return [event.values === "full" ? "changed" : "changed (values are hidden)"];
  let first = event.changes.length ? event.changes[0][0] : 0;
  const known = Math.max(before?.length ?? 0, after?.length ?? 0);
  const piece = first < known ? null : piecesOf(event).find((each) => first < each.offset + each.before.length);
  if (piece) {
    first = Math.max(first, piece.offset);
    ({ offset: begin, before, after } = piece);
  } else if (first >= known) {
    return [
      `${count(event.changed_bytes, "byte")} from offset ${NUMBER.format(first)} of ${sizeText(event.size)}`,
    ];
  }
  const asText = [before, after].every((bytes) => !bytes || bytes.length === 0 || isText(bytes)),
    shown = asText ? 24 : BYTES_SHOWN;
  const changed = (i) =>
    event.changes.some(([offset, length]) => begin + i >= offset && begin + i < offset + length);
  const part = (bytes) => {
    if (!bytes) return "—";
    const start = Math.max(0, Math.min(first - begin - 2, bytes.length - shown));
    return markedBytes(bytes, changed, start, Math.min(bytes.length, start + shown), asText);
  };
  return [part(before), " → ", part(after)];
}

/* "weights[46, 56]: 0.5 → nan", one part after another; `name` may be left out. */
function changeNodes(event, name, partsShown) {
  const label = name ? [element("b", { className: "name", textContent: nameText(event.name) })] : [];
  if (event.kind === "lost") return [...label, name ? ": " : "", "the memory vanished: no longer watched"];
  const parts = partsOf(event);
  if (!parts) return [...label, name ? ": " : "", ...bytesChange(event)];
  const nodes = [];
  parts.slice(0, partsShown).forEach((part, i) => {
    const head = (i === 0 ? "" : " ") + spelt(part.path),
      colon = (i === 0 && name) || part.path ? ": " : "";
    nodes.push(
      ...(i === 0 ? label : []),
      head + colon + spelt(part.old) + " → ",
      element("mark", { textContent: part.new }),
    );
    if (i + 1 < Math.min(parts.length, partsShown)) nodes.push(",");
  });
  if (parts.length > partsShown) nodes.push(` and ${parts.length - partsShown} more`);
  return nodes;
}
