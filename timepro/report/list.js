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

runs();
comparison();
classes();
columns();
byId("legend").append(legend());
restore();
if (data.curves.length) byId("curves").append(...data.curves.map(curve));
else byId("curves-section").remove();
