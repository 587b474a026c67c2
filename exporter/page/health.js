/*
 * health.js -- how memwatch itself does: one short line, and warnings when something is wrong.
 */
"use strict";

function takeStatus(status) {
  const who = status.worker === null ? status.service : `${status.service} / ${status.worker}`;
  const labels = Object.entries(status.labels)
    .map(([name, value]) => `${name}=${value} · `)
    .join("");
  state.status = status;
  setText($("service"), who);
  setText($("about"), `${labels}pid ${status.pid}`);
  const title = spelt(`${who}${status.worker === null ? ` ${status.pid}` : ""} · memwatch`);
  if (document.title !== title) document.title = title;
}

/* What is wrong, as sentences. */
function warningsOf(status) {
  const warnings = [],
    dropped = Object.entries(status.dropped).filter(([, n]) => n > 0);
  const lost = dropped.reduce((sum, [, n]) => sum + n, 0),
    { available, note } = status.attribution;
  if (lost)
    warnings.push(
      `${count(lost, "change or note")} lost (${dropped.map(([reason, n]) => `${reason} ${n}`).join(", ")}).`,
    );
  if (state.missed)
    warnings.push(`This page missed ${count(state.missed, "event")}: they left the log before it read them.`);
  if (status.forks_unwatched)
    warnings.push(
      `The process forked ${count(status.forks_unwatched, "time")}: what its children write is not watched.`,
    );
  if (!available) warnings.push(`Writers are not told on this machine: ${note || "no source of them works"}.`);
  if (status.ring.notes > 0.8 * status.ring.capacity)
    warnings.push("The ring is nearly full: writers may be lost.");
  for (const recorder of status.recorders)
    if (recorder.failing) warnings.push(`The recorder writes nothing: ${recorder.message}.`);
  return warnings;
}

function healthFacts(status) {
  const { exact, page, none, throttled_seconds: throttled } = status.attribution,
    events = exact + page + none;
  return [
    ["Events", NUMBER.format(status.ledger.delivered)],
    ["Proven writers", events ? `${Math.round((100 * exact) / events)} %` : "no event yet"],
    ["Watched", `${count(status.regions, "variable")}, ${sizeText(status.region_bytes)}`],
    ["Backend", status.backend],
    ["Memory of memwatch", sizeText(status.native_memory_bytes)],
    ["Log", `${count(status.log.events, "event")}, ${sizeText(status.log.bytes)}`],
    ["History", `${count(status.history.versions, "version")}, ${sizeText(status.history.bytes)}`],
    ["Ring", `${status.ring.notes} of ${status.ring.capacity}`],
    ["Without signals", `${throttled.toFixed(1)} s (budget ${100 * status.attribution.budget_ratio} %)`],
    ["Version", status.version],
  ];
}

function drawHealth() {
  const status = state.status;
  if (!status) return;
  const warnings = warningsOf(status);
  fill($("warnings"), warnings.join("\n"), () => warnings.map((text) => element("p", { textContent: text })));
  $("warnings").hidden = warnings.length === 0;
  setText(
    $("health-line"),
    `last change ${ageText(state.lastMs, Date.now())} · ${rateText(Math.round(state.rate * 60)) || "0/min"} · ${warnings.length ? count(warnings.length, "warning") : "nothing lost"}`,
  );
  if ($("health").open)
    fill($("health-facts"), JSON.stringify(healthFacts(status)), () => [facts(healthFacts(status))]);
}
