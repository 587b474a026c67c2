/*
 * chart.js -- values over time. Time is the axis: a value holds until the next change.
 *
 * A curve keeps what happened in the last SPAN_MS in buckets of BUCKET_MS, as flat numbers (time, least,
 * greatest, last, changes), so that its size is bounded however often a variable changes.
 */
"use strict";

const SPAN_MS = 5 * 60000,
  BUCKET_MS = 2500,
  FIELDS = 5;

class Curve {
  constructor() {
    this.data = [];
    this.before = NaN; // what it was at the left edge
    this.version = 0;
  }

  /* `n` changes at a time, after which the value is `value`; NaN: it is no number. A sample has n = 0. */
  add(ms, value, n, old) {
    const bucket = Math.floor(ms / BUCKET_MS) * BUCKET_MS,
      data = this.data;
    let at = data.length;
    while (at > 0 && data[at - FIELDS] > bucket) at -= FIELDS;
    if (at === 0 && !Number.isNaN(old)) this.before = old;
    if (at > 0 && data[at - FIELDS] === bucket) this.merge(at - FIELDS, value, n);
    else data.splice(at, 0, bucket, value, value, value, n);
    this.version++;
  }

  merge(at, value, n) {
    const data = this.data;
    if (!Number.isNaN(value)) {
      data[at + 1] = Number.isNaN(data[at + 1]) ? value : Math.min(data[at + 1], value);
      data[at + 2] = Number.isNaN(data[at + 2]) ? value : Math.max(data[at + 2], value);
      data[at + 3] = value;
    }
    data[at + 4] += n;
  }

  prune(now) {
    const data = this.data;
    let old = 0;
    while (old < data.length && data[old] < now - SPAN_MS - BUCKET_MS) old += FIELDS;
    if (!old) return;
    if (!Number.isNaN(data[old - 2])) this.before = data[old - 2];
    data.splice(0, old);
  }

  /* Changes in the last minute. */
  rate(now) {
    let n = 0;
    for (let i = this.data.length - FIELDS; i >= 0 && this.data[i] > now - 60000 - BUCKET_MS; i -= FIELDS)
      n += this.data[i + 4];
    return n;
  }

  /* [[ms, least, greatest, last, changes]] since `from`. */
  points() {
    const points = [];
    for (let i = 0; i < this.data.length; i += FIELDS) points.push(this.data.slice(i, i + FIELDS));
    return points;
  }
}

/* The range of finite values, or null. */
function rangeOf(points, before) {
  const values = points
    .flatMap((point) => [point[1], point[2], point[3]])
    .concat(before)
    .filter(Number.isFinite);
  if (!values.length) return null;
  return { low: values.reduce((a, b) => Math.min(a, b)), high: values.reduce((a, b) => Math.max(a, b)) };
}

/* The line of a value that holds until it changes, as a path; gaps where it is no number. */
function stepPath(points, before, x, y, end) {
  let path = "",
    known = Number.isFinite(before),
    last = before;
  if (known) path = `M${x(-Infinity)} ${y(before)}`;
  for (const [ms, low, high, value] of points) {
    const at = x(ms);
    if (known) path += `H${at}`;
    if (Number.isFinite(value)) {
      if (!known) path += `M${at} ${y(value)}`;
      if (low < high) path += `V${y(low)}V${y(high)}`;
      path += `V${y(value)}`;
    }
    known = Number.isFinite(value);
    last = value;
  }
  return known && Number.isFinite(last) ? path + `H${x(end)}` : path;
}

function tickPath(points, x, bottom, height) {
  const most = Math.max(1, ...points.map((point) => point[4]));
  return points
    .filter((point) => point[4] > 0)
    .map(
      (point) => `M${x(point[0])} ${bottom}V${(bottom - Math.max(0.25, point[4] / most) * height).toFixed(1)}`,
    )
    .join("");
}

function makeSpark() {
  const line = svg("path", { class: "line" }),
    ticks = svg("path", { class: "ticks" });
  const node = svg("svg", { viewBox: "0 0 120 24", preserveAspectRatio: "none", role: "img" }, ticks, line);
  return { node, line, ticks };
}

/* Draws the last SPAN_MS of a curve. */
function drawSpark(spark, curve, now) {
  const points = curve.points(),
    range = rangeOf(points, curve.before),
    start = now - SPAN_MS;
  const x = (ms) => (Math.max(0, Math.min(1, (ms - start) / SPAN_MS)) * 120).toFixed(1);
  const span = range && range.high > range.low ? range.high - range.low : 1;
  const y = (value) => (range.high === range.low ? 12 : 22 - ((value - range.low) / span) * 20).toFixed(1);
  spark.line.setAttribute("d", range ? stepPath(points, curve.before, x, y, now) : "");
  spark.ticks.setAttribute("d", range ? "" : tickPath(points, x, 23, 20));
  const n = points.reduce((sum, point) => sum + point[4], 0);
  const values = range ? `from ${numberText(range.low)} to ${numberText(range.high)}, ` : "";
  spark.node.setAttribute(
    "aria-label",
    `${values}${count(n, "change")} in the last ${SPAN_MS / 60000} minutes`,
  );
}

/* --- the large one -------------------------------------------------------------------------------------------- */

const CHART_W = 720,
  LEFT = 70,
  BOTTOM = 24,
  TOP = 10;

function timeTicks(start, end) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400].map(
    (s) => s * 1000,
  );
  const step =
    steps.find((candidate) => (end - start) / candidate <= 6) ??
    Math.ceil((end - start) / 6 / 86400000) * 86400000;
  const ticks = [];
  for (let ms = Math.ceil(start / step) * step; ms <= end; ms += step) ticks.push(ms);
  return ticks.map((ms) => [
    ms,
    new Date(ms).toLocaleTimeString("en-GB", step < 60000 ? {} : { hour: "2-digit", minute: "2-digit" }),
  ]);
}

/* A chart with axes: points of [ms, least, greatest, last, changes]. */
function bigChart(points, before, start, end) {
  const range = rangeOf(points, before),
    height = range ? 200 : 90,
    right = CHART_W - 10,
    bottom = height - BOTTOM;
  const x = (ms) =>
    (LEFT + Math.max(0, Math.min(1, (ms - start) / Math.max(1, end - start))) * (right - LEFT)).toFixed(1);
  const span = range && range.high > range.low ? range.high - range.low : 1;
  const y = (value) =>
    (range.high === range.low
      ? (TOP + bottom) / 2
      : bottom - ((value - range.low) / span) * (bottom - TOP)
    ).toFixed(1);
  const node = svg("svg", { viewBox: `0 0 ${CHART_W} ${height}`, role: "img", class: "chart" });
  const label = (text, at, anchor) =>
    node.append(Object.assign(svg("text", { ...at, "text-anchor": anchor }), { textContent: text }));
  node.append(svg("path", { class: "axis", d: `M${LEFT} ${TOP}V${bottom}H${right}` }));
  for (const [ms, text] of timeTicks(start, end)) {
    node.append(svg("path", { class: "grid", d: `M${x(ms)} ${TOP}V${bottom}` }));
    if (Number(x(ms)) < right - 24) label(text, { x: x(ms), y: height - 6 }, "middle");
  }
  if (range) {
    const marks = range.high > range.low ? [range.low, (range.low + range.high) / 2, range.high] : [range.low];
    marks.forEach((value) =>
      label(numberText(Number(value.toPrecision(5))), { x: LEFT - 6, y: Number(y(value)) + 4 }, "end"),
    );
    node.append(svg("path", { class: "line", d: stepPath(points, before, x, y, end) }));
    points
      .filter((point) => point[4] > 0 && !Number.isFinite(point[3]))
      .forEach((point) => label(numberText(point[3]), { x: x(point[0]), y: TOP + 10 }, "middle"));
  } else {
    label("changes", { x: LEFT - 6, y: bottom }, "end");
    node.append(svg("path", { class: "ticks", d: tickPath(points, x, bottom, bottom - TOP) }));
  }
  const n = points.reduce((sum, point) => sum + point[4], 0);
  node.setAttribute(
    "aria-label",
    `${range ? `values from ${numberText(range.low)} to ${numberText(range.high)}, ` : ""}` +
      `${count(n, "change")} between ${clockText(start)} and ${clockText(end)}`,
  );
  return node;
}
