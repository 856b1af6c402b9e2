// ---------------------------------------------------------------- a clip
function track(clip, name, events, answer) {
  const rows = [], made = node("div", { class: "track" });
  const place = (element, from, to) => {
    const begin = Math.max(0, from), end = Math.min(to, clip.duration);
    element.style.left = (100 * begin) / clip.duration + "%";
    element.style.width = Math.max(0, (100 * (end - begin)) / clip.duration) + "%";
    return element;
  };
  for (const [from, to] of clip.collars) made.append(place(node("div", { class: "collar" }), from, to));
  if (answer && !answer.ok) {
    made.classList.add("unreadable");
    made.append(node("span", {}, "unreadable answer"));
  } else if (!events.length) made.append(node("span", {}, "no events"));
  for (const event of answer && !answer.ok ? [] : [...events].sort((a, b) => a[0] - b[0])) {
    let row = rows.findIndex((end) => end <= event[0]);
    if (row < 0) row = rows.push(0) - 1;
    rows[row] = event[1];
    const label = event[2] || "event", late = event[0] >= clip.duration;
    const what = `${label}, ${event[0].toFixed(2)} to ${event[1].toFixed(2)} s, ${name}` + (late ? ", after the clip's end" : "");
    const bar = node("button", { type: "button", title: what, "aria-label": (clip.audio ? "play " : "") + what, onclick: () => play(clip, event[0], Math.min(event[1], clip.duration)) }, label);
    place(bar, late ? clip.duration * 0.997 : event[0], event[1]);
    bar.style.top = 0.08 + 1.45 * row + "rem";
    dress(bar, event[2]);
    made.append(bar);
  }
  made.style.height = 0.15 + 1.45 * Math.max(1, rows.length) + "rem";
  return lane(clip, name, made);
}
function lane(clip, name, made) {
  const mark = node("div", { class: "now", "data-clip": clip.id });
  mark.style.display = "none";
  made.append(mark);
  return node("div", { class: "lane" }, node("span", {}, name), made);
}
function axis(clip) {
  const made = node("div", { class: "axis" }), most = 12;
  const step = [0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5, 10, 15, 30, 60, 120, 300].find((s) => clip.duration / s <= most) || clip.duration;
  for (let k = 0; k * step <= clip.duration + 1e-9; k++) {
    const tick = node("span", {}, String(Number((k * step).toFixed(2))));
    tick.style.left = (100 * k * step) / clip.duration + "%";
    made.append(tick);
  }
  return node("div", { class: "lane" }, node("span", {}, "time (s)"), made);
}
function inside(clip) {
  const body = node("div", { class: "body" }, node("p", { class: "question" }, `${clip.task}: ${clip.question} (${clip.duration.toFixed(2)} s)`));
  if (clip.audio) {
    body.append(node("p", {}, node("button", { type: "button", onclick: () => play(clip, 0, Infinity) }, "\u25b6 play"), " ", node("button", { type: "button", onclick: () => player.pause() }, "stop")));
    const picture = node("img", { src: clip.picture, alt: `spectrogram of ${clip.id}: low frequencies below, up to 8 kHz above` });
    body.append(lane(clip, "spectrogram, 0 to 8 kHz (mel)", node("div", { class: "track picture" }, picture)));
  } else body.append(node("p", { class: "silent" }, `Its sound and spectrogram are not in this page: ${clip.path}`));
  body.append(track(clip, "reference", clip.reference));
  clip.answers.forEach((answer, k) => body.append(track(clip, `${data.systems[k].name} ${answer.score.toFixed(2)}`, answer.events, answer)));
  body.append(axis(clip));
  clip.answers.forEach((answer, k) => body.append(node("p", { class: "answer" }, node("strong", {}, data.systems[k].name), " ", answer.text || "(empty)")));
  return body;
}
function columns() {
  const names = ["clip", ...data.systems.map((s) => s.name), ...(last > 0 ? ["change"] : []), "reference labels", "sound"];
  const head = node("div", { class: "columns", "aria-hidden": "true" }, ...names.map((name) => node("span", {}, name)));
  byId("clips").before(head);
  document.documentElement.style.setProperty("--columns", `minmax(7rem, 1.4fr) repeat(${data.systems.length + (last > 0 ? 1 : 0)}, minmax(3.4rem, 6rem)) minmax(5rem, 2fr) 3rem`);
}
function row(clip) {
  const change = clip.answers[last].score - clip.answers[0].score;
  const cell = (text, name, kind = "score") => node("span", { class: kind, "data-name": name }, text);
  const head = node("button", { type: "button", "aria-expanded": "false" }, cell(clip.id, "clip", "id"));
  clip.answers.forEach((answer, k) => head.append(cell(answer.ok ? answer.score.toFixed(2) : "unreadable", data.systems[k].name)));
  if (last > 0) head.append(cell(change === 0 ? "0.00" : signed(change, 2), "change", change > 0 ? "score up" : change < 0 ? "score down" : "score"));
  head.append(cell([...new Set(clip.reference.map((e) => e[2] || "event"))].join(", ") || "nothing", "reference labels", "labels"));
  head.append(cell(clip.audio ? "\u266a" : "", "sound"));
  const made = node("article", { class: "clip", id: "clip-" + clip.id }, head);
  head.addEventListener("click", () => {
    const open = head.getAttribute("aria-expanded") === "true";
    head.setAttribute("aria-expanded", String(!open));
    if (open) made.lastChild.remove();
    else made.append(inside(clip));
  });
  return made;
}
