"use strict";
const byId = (id) => document.getElementById(id);
const QUIETEST = -80;
const SPANS = [["15 minutes", 0.25], ["1 hour", 1], ["6 hours", 6], ["1 day", 24], ["1 week", 168]];
const PAGE = 20;
let known = { events: [], colours: {}, hours: 6 };
let shown = PAGE;
let drawn = "";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") Object.assign(made.style, value);
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();
const dateAndTime = (seconds) => new Date(seconds * 1000).toLocaleString();
const words = (label) => label.replaceAll("_", " ");
const share = (value) => `${Math.max(0, Math.min(100, 100 * value))}%`;

function drawStatus(status) {
  byId("name").textContent = status.monitor;
  document.title = `${status.stream === "lost" ? "LOST: " : ""}${status.monitor}`;
  byId("source").textContent = status.source;
  const pill = byId("stream");
  pill.className = `pill ${status.stream}`;
  pill.textContent = status.stream === "on" ? "listening" : `stream lost since ${clock(status.lost_since)}: ${status.reason}`;
  byId("level").style.width = share(1 - status.level_db / QUIETEST);
  byId("background").style.left = share(1 - status.background_db / QUIETEST);
  byId("meter").setAttribute("aria-valuenow", status.level_db);
  byId("level-text").textContent = `${status.level_db.toFixed(0)} dB, background ${status.background_db.toFixed(0)} dB`;
  drawNow(status);
  drawWork(status);
}

function drawNow(status) {
  const rows = status.now.map((one) => {
    const below = one.confidence !== null && one.confidence < one.threshold;
    const value = one.confidence === null ? 1 : one.confidence;
    const bar = element("div", { className: "bar" },
      element("i", { style: { width: share(value), background: known.colours[one.label] || "#5B6770" } }),
      element("b", { style: { left: share(one.threshold) }, title: `threshold ${one.threshold}` }));
    const text = `${one.confidence === null ? "" : value.toFixed(2)} ${below ? "below" : ""}`;
    return element("li", { className: below ? "below" : "" }, element("span", {}, words(one.label)), bar, element("span", {}, text));
  });
  const age = status.now_age_s === null ? "" : ` (${status.now_age_s.toFixed(0)} s ago)`;
  byId("now").replaceChildren(...(rows.length ? rows : [element("li", {}, element("span", { className: "below" }, `nothing${age}`))]));
}

function drawWork(status) {
  const rows = [
    ["Sound heard", `${(status.heard_s / 3600).toFixed(2)} h`],
    ["Calls saved", `${(100 * status.saved).toFixed(1)} % of ${status.asked + status.silent} windows were silent`],
    ["Time in the model", status.heard_s ? `${(100 * status.asking_s / status.heard_s).toFixed(1)} % of the sound` : "none"],
    ["Behind", `${status.behind_s.toFixed(1)} s`],
    ...status.sinks.map((one) => [one.name, one.trouble ? `${one.trouble}; ${one.waiting} wait` : one.waiting ? `${one.waiting} wait` : "all delivered", one.trouble]),
  ];
  byId("work").replaceChildren(...rows.flatMap(([name, text, trouble]) => [
    element("dt", {}, name), element("dd", { className: trouble ? "trouble" : "" }, text)]));
}

function drawTimeline() {
  const span = Number(byId("zoom").value) * 3600, end = Date.now() / 1000, begin = end - span;
  const inside = known.events.filter((event) => (event.offset || end) >= begin);
  const labels = Object.keys(known.colours).filter((label) => inside.some((event) => event.label === label));
  const rows = labels.map((label) => element("div", { className: "row" }, element("span", {}, words(label)),
    element("div", { className: "track" }, ...inside.filter((event) => event.label === label).map((event) => {
      const from = Math.max(event.onset, begin), to = event.offset || end;
      const text = `${words(label)}, ${dateAndTime(event.onset)}, ${(to - event.onset).toFixed(1)} s${event.alerted ? "" : ", no alert"}`;
      return element("button", {
        type: "button", className: event.alerted ? "" : "quiet", title: text, "aria-label": text,
        style: { left: share((from - begin) / span), width: share((to - from) / span), background: known.colours[label] },
        onclick: () => choose(event.event),
      });
    }))));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => element("span",
    { className: part % 0.5 ? "between" : "", style: { left: share(part), transform: `translateX(${-100 * part}%)` } },
    new Date((begin + part * span) * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false })));
  byId("timeline").replaceChildren(...(rows.length ? rows : [element("p", { className: "note" }, "Nothing was heard in this time.")]),
    element("div", { className: "row" }, element("span"), element("div", { className: "axis" }, ...ticks)));
}

function alertItem(event) {
  const going = event.offset === null;
  const item = element("li", { id: `event-${event.event}`, style: { borderLeftColor: known.colours[event.label] } },
    element("div", { className: "head" }, element("b", {}, words(event.label)), element("span", {}, dateAndTime(event.onset)),
      element("span", {}, going ? "goes on" : `${(event.offset - event.onset).toFixed(1)} s`),
      element("span", {}, `confidence ${event.confidence.toFixed(2)}`)));
  if (event.clip) {
    const address = `clips/${event.clip}`;
    item.append(
      element("img", { src: address.replace(/\.flac$/, ".jpg"), alt: `spectrogram of ${words(event.label)}`, loading: "lazy" }),
      element("audio", { src: address, controls: true, preload: "none" }));
  } else if (!going) {
    item.append(element("p", { className: "note" }, "No sound was kept."));
  }
  return item;
}

function drawAlerts() {
  const label = byId("which").value;
  const alerts = known.events.filter((event) => event.alerted && (!label || event.label === label)).reverse();
  const key = JSON.stringify([label, shown, alerts.slice(0, shown)]);
  byId("none").hidden = alerts.length > 0;
  byId("more").hidden = alerts.length <= shown;
  if (key === drawn) return; // else a clip that plays would begin anew
  drawn = key;
  const old = new Map([...byId("alerts").children].map((item) => [item.dataset.key, item]));
  byId("alerts").replaceChildren(...alerts.slice(0, shown).map((event) => {
    const content = JSON.stringify(event), item = old.get(content) || alertItem(event);
    item.dataset.key = content;
    return item;
  }));
}

function choose(event) {
  byId("which").value = "";
  shown = Math.max(shown, known.events.length);
  drawAlerts();
  const item = byId(`event-${event}`);
  if (!item) return;
  document.querySelectorAll("#alerts .chosen").forEach((one) => one.classList.remove("chosen"));
  item.classList.add("chosen");
  item.scrollIntoView({ block: "center" });
  const player = item.querySelector("audio");
  if (player) player.play().catch(() => player.focus());
}

function drawChoices() {
  const which = byId("which"), labels = [...which.options].map((option) => option.value);
  for (const label of Object.keys(known.colours)) {
    if (!labels.includes(label)) which.append(element("option", { value: label }, words(label)));
  }
  if (byId("zoom").options.length) return;
  const spans = SPANS.filter(([, hours]) => hours < known.hours);
  byId("zoom").append(...[...spans, [`${known.hours} hours`, known.hours]].map(([text, hours]) => element("option", { value: hours }, text)));
  byId("zoom").value = known.hours;
}

async function get(address) {
  const answer = await fetch(address, { signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.json();
}

async function follow(address, every, draw) {
  for (;;) {
    try {
      if (!document.hidden) draw(await get(address));
    } catch {
      byId("stream").className = "pill lost";
      byId("stream").textContent = "the monitor does not answer";
    }
    await new Promise((done) => setTimeout(done, every));
  }
}

byId("zoom").addEventListener("change", drawTimeline);
byId("which").addEventListener("change", () => { shown = PAGE; drawAlerts(); });
byId("more").addEventListener("click", () => { shown += PAGE; drawAlerts(); });
follow("api/events", 2000, (body) => { known = body; drawChoices(); drawTimeline(); drawAlerts(); });
follow("api/status", 500, drawStatus);
