"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#6FA8DC", "#D55E00", "#F0E442", "#B5B5B5"];
  const LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
  const STEP = 50;
  const byId = (id) => document.getElementById(id);
  const last = data.systems.length - 1;

  function node(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }
  function svg(tag, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  const labels = new Map();
  function colour(label) {
    if (!labels.has(label)) labels.set(label, COLOURS[labels.size % COLOURS.length]);
    return labels.get(label);
  }
  const signed = (x, digits) => (x >= 0 ? "+" : "\u2212") + Math.abs(x).toFixed(digits);

  // ---------------------------------------------------------------- the table
  function shown(key, value) {
    if (key === "n" || key.endsWith("/n")) return String(value);
    return /unparsable|empty/.test(key) ? (100 * value).toFixed(1) + " %" : value.toFixed(3);
  }
  function comparison() {
    const keys = [];
    for (const system of data.systems) for (const key of Object.keys(system.metrics)) if (!keys.includes(key)) keys.push(key);
    const head = node("tr", {}, node("th", { scope: "col" }, "system"));
    for (const [task, metric] of Object.entries(data.main)) {
      if (last > 0) head.append(node("th", { scope: "col" }, `${task}: ${metric.replaceAll("_", " ")} over the first (95 %)`));
    }
    for (const key of keys) head.append(node("th", { scope: "col" }, key.replaceAll("_", " ")));
    const body = node("tbody");
    for (const system of data.systems) {
      const row = node("tr", {}, node("td", {}, system.name));
      for (const task of Object.keys(data.main)) {
        if (last === 0) continue;
        const gain = system.gain && system.gain[task];
        const text = gain ? `${signed(gain[0], 3)} [${signed(gain[1], 3)}, ${signed(gain[2], 3)}]` : "";
        row.append(node("td", {}, text));
      }
      for (const key of keys) {
        const value = system.metrics[key];
        const low = /unparsable/.test(key), plain = /(^|\/)(n|empty)$/.test(key);
        const others = data.systems.map((s) => s.metrics[key]).filter((v) => v !== undefined);
        const best = low ? Math.min(...others) : Math.max(...others);
        const bold = !plain && others.length > 1 && value === best;
        row.append(node("td", bold ? { class: "best" } : {}, value === undefined ? "\u2013" : shown(key, value)));
      }
      body.append(row);
    }
    byId("comparison").append(node("table", {}, node("thead", {}, head), body));
  }

  // ---------------------------------------------------------------- curves
  function curve(panel) {
    const W = 320, H = 150, L = 42, B = 20;
    const points = panel.series.flatMap((s) => s.points);
    const x1 = Math.max(...points.map((p) => p[0]), 1);
    let [y0, y1] = [Math.min(...points.map((p) => p[1])), Math.max(...points.map((p) => p[1]))];
    if (y0 === y1) [y0, y1] = [y0 - 0.5, y1 + 0.5];
    const x = (v) => L + ((W - L - 6) * v) / x1, y = (v) => 6 + (H - B - 6) * (1 - (v - y0) / (y1 - y0));
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": panel.title });
    for (const v of [y0, (y0 + y1) / 2, y1]) {
      picture.append(svg("line", { x1: L, x2: W - 6, y1: y(v), y2: y(v), stroke: "currentColor", "stroke-opacity": 0.15 }));
      const text = svg("text", { x: L - 4, y: y(v) + 3, "text-anchor": "end" });
      text.textContent = Number(v.toPrecision(3));
      picture.append(text);
    }
    const end = svg("text", { x: W - 6, y: H - 6, "text-anchor": "end" });
    end.textContent = `step ${x1}`;
    picture.append(end);
    panel.series.forEach((series, k) => {
      const line = series.points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ");
      const title = svg("title", {});
      title.textContent = series.name;
      picture.append(svg("polyline", { points: line, fill: "none", stroke: LINES[k % LINES.length], "stroke-width": 1.6 }, title));
    });
    const caption = node("figcaption", {}, panel.title);
    if (panel.series.length > 1) panel.series.forEach((s, k) => caption.append(" ", node("span", { style: `color:${LINES[k % LINES.length]}` }, `\u25a0 ${s.name}`)));
    return node("figure", {}, picture, caption);
  }

  // ---------------------------------------------------------------- playing
  const player = byId("player");
  let playing = null, until = Infinity;
  function play(clip, from, to) {
    if (!clip.audio) return;
    if (playing !== clip) player.src = clip.audio;
    playing = clip;
    until = to;
    const begin = () => { player.currentTime = from; player.play().catch(() => {}); };
    if (player.readyState >= 1) begin();
    else { player.addEventListener("loadedmetadata", begin, { once: true }); player.load(); }
  }
  player.addEventListener("timeupdate", () => {
    if (player.currentTime >= until) player.pause();
    for (const mark of document.querySelectorAll(".now")) {
      const on = playing && mark.dataset.clip === playing.id && !player.paused;
      mark.style.display = on ? "" : "none";
      if (on) mark.style.left = (100 * player.currentTime) / playing.duration + "%";
    }
  });

  // ---------------------------------------------------------------- a clip
  function track(clip, name, events) {
    const rows = [], made = node("div", { class: "track" });
    for (const event of [...events].sort((a, b) => a[0] - b[0])) {
      let row = rows.findIndex((end) => end <= event[0]);
      if (row < 0) row = rows.push(0) - 1;
      rows[row] = event[1];
      const end = Math.min(event[1], clip.duration), label = event[2] || "event";
      const what = `${label}, ${event[0].toFixed(2)} to ${event[1].toFixed(2)} s, ${name}`;
      const bar = node("button", { type: "button", title: what, "aria-label": (clip.audio ? "play " : "") + what, onclick: () => play(clip, event[0], end) }, label);
      bar.style.left = (100 * event[0]) / clip.duration + "%";
      bar.style.width = Math.max(0.4, (100 * (end - event[0])) / clip.duration) + "%";
      bar.style.top = 0.08 + 1.45 * row + "rem";
      bar.style.background = colour(label);
      made.append(bar);
    }
    made.style.height = 0.15 + 1.45 * Math.max(1, rows.length) + "rem";
    const mark = node("div", { class: "now", "data-clip": clip.id });
    mark.style.display = "none";
    made.append(mark);
    return node("div", { class: "lane" }, node("span", {}, name), made);
  }
  function inside(clip) {
    const body = node("div", { class: "body" }, node("p", { class: "question" }, `${clip.task}: ${clip.question} (${clip.duration.toFixed(2)} s)`));
    if (clip.audio) body.append(node("button", { type: "button", onclick: () => play(clip, 0, Infinity) }, "\u25b6 play"), " ", node("button", { type: "button", onclick: () => player.pause() }, "stop"));
    else body.append(node("p", { class: "silent" }, `Its sound is not in this page: ${clip.path}`));
    body.append(track(clip, "reference", clip.reference));
    clip.answers.forEach((answer, k) => {
      body.append(track(clip, `${data.systems[k].name} ${answer.score.toFixed(2)}`, answer.events));
      body.append(node("p", { class: "answer" }, answer.ok ? answer.text : `unreadable: ${answer.text}`));
    });
    return body;
  }
  function row(clip) {
    const change = clip.answers[last].score - clip.answers[0].score;
    const head = node("button", { type: "button", "aria-expanded": "false" }, node("span", { class: "id" }, clip.id));
    head.append(node("span", { class: "score" }, clip.answers.map((a) => a.score.toFixed(2)).join(" \u2192 ")));
    if (last > 0 && change !== 0) head.append(node("span", { class: change > 0 ? "up" : "down" }, signed(change, 2)));
    head.append(node("span", { class: "score" }, [...new Set(clip.reference.map((e) => e[2] || "event"))].join(", ") || "nothing to hear"));
    if (clip.audio) head.append(node("span", { class: "score" }, "\u266a"));
    const made = node("article", { class: "clip", id: "clip-" + clip.id }, head);
    head.addEventListener("click", () => {
      const open = head.getAttribute("aria-expanded") === "true";
      head.setAttribute("aria-expanded", String(!open));
      if (open) made.lastChild.remove();
      else made.append(inside(clip));
    });
    return made;
  }

  // ---------------------------------------------------------------- the list; its state is in the address
  const SORTS = { change: "change", duration: "duration", events: "number of events", id: "id" };
  data.systems.forEach((system, k) => { SORTS["score" + k] = "score of " + system.name; });
  if (last === 0) delete SORTS.change;
  const value = (clip, key) => {
    if (key === "change") return clip.answers[last].score - clip.answers[0].score;
    if (key === "duration") return clip.duration;
    if (key === "events") return clip.reference.length;
    if (key === "id") return clip.id;
    return clip.answers[Number(key.slice(5))].score;
  };
  const KEEP = {
    all: () => true,
    wrong: (clip) => clip.answers[last].score < 1,
    unparsable: (clip) => clip.answers.some((a) => !a.ok),
    better: (clip) => clip.answers[last].score > clip.answers[0].score,
    worse: (clip) => clip.answers[last].score < clip.answers[0].score,
    sound: (clip) => Boolean(clip.audio),
  };
  const texts = data.clips.map((clip) =>
    [clip.id, clip.question, ...clip.reference.map((e) => e[2]), ...clip.answers.map((a) => a.text)].join(" ").toLowerCase());
  const fields = { filter: byId("filter"), which: byId("which"), sort: byId("sort"), order: byId("order") };
  for (const [key, text] of Object.entries(SORTS)) fields.sort.append(node("option", { value: key }, text));
  let found = [], visible = 0;
  function more() {
    byId("clips").append(...found.slice(visible, visible + STEP).map(row));
    visible = Math.min(visible + STEP, found.length);
    byId("more").hidden = visible >= found.length;
    byId("count").textContent = `${found.length} of ${data.clips.length} clips` + (visible < found.length ? `, ${visible} shown` : "");
  }
  function list() {
    const wanted = fields.filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const key = fields.sort.value, sign = fields.order.value === "up" ? 1 : -1;
    found = data.clips.filter((clip, i) => KEEP[fields.which.value](clip) && wanted.every((word) => texts[i].includes(word)));
    found.sort((a, b) => { const x = value(a, key), y = value(b, key); return sign * (x < y ? -1 : x > y ? 1 : 0); });
    byId("clips").replaceChildren();
    visible = 0;
    more();
  }
  function remember() {
    const state = new URLSearchParams();
    for (const [key, field] of Object.entries(fields)) if (field.value) state.set(key, field.value);
    try { history.replaceState(null, "", "#" + state); } catch { /* some viewers of local files forbid it */ }
    list();
  }
  function restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const [key, field] of Object.entries(fields)) if (state.has(key)) field.value = state.get(key);
    for (const field of [fields.which, fields.sort, fields.order]) if (!field.value) field.selectedIndex = 0;
    list();
    const id = state.get("clip");
    if (!found.some((clip) => clip.id === id)) return;
    while (!byId("clip-" + id)) more();
    byId("clip-" + id).firstChild.click();
    byId("clip-" + id).scrollIntoView();
  }
  byId("controls").addEventListener("input", remember);
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", more);
  window.addEventListener("hashchange", restore);

  comparison();
  restore();
  if (data.curves.length) byId("curves").append(...data.curves.map(curve));
  else byId("curves-section").remove();
})();
