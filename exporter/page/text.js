/*
 * text.js -- nodes and words.
 *
 * Everything that comes from the process is put in by textContent, through here: characters that hide, reorder or break
 * text are spelt out, and blanks that nobody would see are shown.
 */
"use strict";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/* Characters that hide, reorder or break text; blanks but the plain one. */
const HIDDEN = new RegExp(
  "[\\u0000-\\u001f\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160\\u1680\\u17b4\\u17b5\\u180b-\\u180f" +
    "\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800\\u3000\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\ud800-\\udfff]" +
    "|[\\u{e0000}-\\u{e0fff}]",
  "gu",
);

function spelt(text) {
  return String(text).replace(HIDDEN, (c) => "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));
}

/* A name as it is to be read: hidden characters as their numbers, blanks at its ends and in a row as ␣. */
function nameText(name) {
  if (name === "") return "(empty name)";
  return spelt(name).replace(/^ +| +$| {2,}/g, (blanks) => "␣".repeat(blanks.length));
}

function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "textContent") node.textContent = spelt(value);
    else if (name === "title") node.title = spelt(value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function setText(node, text) {
  const clean = spelt(text);
  if (node.textContent !== clean) node.textContent = clean;
}

/* Puts children in place of those there are, if `key` is another than last time. */
function fill(node, key, make) {
  if (node.shownKey === key) return;
  node.shownKey = key;
  node.replaceChildren(...make());
}

/* --- words for numbers ---------------------------------------------------------------------------------------- */

const NUMBER = new Intl.NumberFormat("en"); // made once: making one costs more than many uses

function count(n, word) {
  return `${NUMBER.format(n)} ${word}${n === 1 ? "" : "s"}`;
}

function sizeText(bytes) {
  if (bytes < 10000) return count(bytes, "byte");
  const power = Math.min(3, Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 1024 ** power).toFixed(1)} ${["", "KiB", "MiB", "GiB"][power]}`;
}

/* A number of an event: JSON has NaN and what a double cannot hold as text. */
function numberText(value) {
  if (value === null || value === undefined) return "—";
  if (typeof value === "string") return { NaN: "nan", Infinity: "inf", "-Infinity": "-inf" }[value] ?? value;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(7)));
}

/* Two numbers beside each other: with all their digits where seven would make them the same. */
function pairText(old, now) {
  const texts = [numberText(old), numberText(now)];
  return texts[0] === texts[1] && typeof old === "number" && typeof now === "number" && old !== now
    ? [String(old), String(now)]
    : texts;
}

function asNumber(value) {
  if (typeof value === "boolean") return value ? 1 : 0;
  return value === null || value === undefined || value === "" ? NaN : Number(value);
}

function ageText(ms, now) {
  if (!ms) return "never";
  const seconds = Math.max(0, (now - ms) / 1000);
  if (seconds < 1.5) return "now";
  if (seconds < 120) return `${Math.round(seconds)} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

function rateText(perMinute) {
  if (perMinute === 0) return "";
  return perMinute >= 120 ? `${(perMinute / 60).toFixed(perMinute < 600 ? 1 : 0)}/s` : `${perMinute}/min`;
}

/* By hand: the browser's own words for a time take longer than the rest of a row. */
function clockText(ms) {
  const date = new Date(ms),
    digits = (n, width) => String(n).padStart(width, "0");
  const clock = [date.getHours(), date.getMinutes(), date.getSeconds()].map((n) => digits(n, 2)).join(":");
  const time = `${clock}.${digits(date.getMilliseconds(), 3)}`;
  return Date.now() - ms > 86400000 ? `${date.toLocaleDateString("en-CA")} ${time}` : time;
}

function timeNode(ms, text = clockText(ms)) {
  const iso = new Date(ms).toISOString();
  return element("time", { dateTime: iso, title: iso, textContent: text });
}
