// The page's parts put together: choose or record, ask, look, listen, download.
import { Refused, events, file as writeFile, forgetToken, info, keepToken } from "./api.js";
import { Recorder } from "./recorder.js";
import { Timeline, clock } from "./timeline.js";

const byId = (id) => document.getElementById(id);
const player = byId("player");
let server = null;
let chosen = null;
let recorder = null;
let asking = null;
let result = null;
let endings = {};

// ---------------------------------------------------------------- what is said
function complain(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
  if (text) byId("message").scrollIntoView({ block: "nearest" });
}
const say = (text) => { if (byId("status").textContent !== text) byId("status").textContent = text; };

function failed(error) {
  if (error.name === "AbortError") return say("Stopped.");
  say("");
  if (error instanceof Refused && error.status === 401) { forgetToken(); return unlock(); }
  complain(error.message);
}

function unlock() {
  byId("unlock").hidden = false;
  byId("ask").hidden = true;
  byId("token").focus();
}
byId("unlock").addEventListener("submit", async (press) => {
  press.preventDefault();
  keepToken(byId("token").value);
  byId("token").value = "";
  await begin();
  if (!server) complain("The server does not know this token.");
});

// ---------------------------------------------------------------- the server
async function begin() {
  try {
    server = await info();
  } catch (error) {
    return failed(error);
  }
  complain("");
  byId("unlock").hidden = true;
  byId("ask").hidden = false;
  byId("model").textContent = server.model;
  byId("format").replaceChildren(...server.formats.map((form) => new Option(`${form.name}: ${form.about}`, form.name)));
  endings = Object.fromEntries(server.formats.map((form) => [form.name, form.suffix]));
  byId("mode").querySelector("[value=labels]").hidden = !server.classes.length;
  byId("labels").append(...server.classes.map((name) => {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", value: name, checked: true });
    label.className = "check";
    label.append(box, name);
    return label;
  }));
}

// ---------------------------------------------------------------- the recording
function take(recording) {
  if (!recording) return;
  const most = server.limits.max_upload_mib;
  if (recording.size > most * 2 ** 20) return complain(`${recording.name} has ${Math.ceil(recording.size / 2 ** 20)} MiB.\nThis server takes at most ${most} MiB.\nCut it into parts, or compress it.`);
  complain("");
  chosen = recording;
  byId("chosen").textContent = `${recording.name}, ${(recording.size / 2 ** 20).toFixed(1)} MiB`;
  byId("find").disabled = false;
}
byId("file").addEventListener("change", () => take(byId("file").files[0]));
const drop = byId("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (drag) => {
    drag.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(drag.dataTransfer.files[0]);
  });
}

byId("record").addEventListener("click", async () => {
  try {
    if (recorder) return await endRecording();
    complain("");
    recorder = await Recorder.start((seconds, level) => {
      byId("chosen").textContent = `recording, ${clock(seconds, 0)}`;
      byId("level").firstElementChild.style.transform = `scaleX(${Math.sqrt(level)})`;
      const limits = server.limits;
      if (recorder && (seconds > limits.max_audio_s - 1 || recorder.bytes > (limits.max_upload_mib - 0.5) * 2 ** 20)) endRecording();
    });
    showRecording(true);
  } catch (error) {
    complain(error.message);
  }
});
async function endRecording() {
  const ended = recorder;
  recorder = null;
  showRecording(false);
  take(await ended.stop());
}
function showRecording(on) {
  byId("record").textContent = on ? "Stop recording" : "Record";
  byId("record").setAttribute("aria-pressed", on);
  byId("level").hidden = !on;
}

// ---------------------------------------------------------------- the question
byId("mode").addEventListener("change", () => {
  byId("labels").hidden = byId("mode").value !== "labels";
  byId("query-box").hidden = byId("mode").value !== "query";
});

function form() {
  const fields = new FormData();
  fields.append("file", chosen, chosen.name);
  fields.append("samples", byId("samples").value);
  fields.append("all", "true");
  fields.append("spectrogram", "true");
  if (byId("mode").value === "query") fields.append("query", byId("query").value);
  if (byId("mode").value === "labels") for (const box of byId("labels").querySelectorAll(":checked")) fields.append("labels", box.value);
  return fields;
}

function tell(said) {
  const bar = byId("progress");
  bar.hidden = false;
  if (said.waiting !== null) return say(`Waiting, ${said.waiting} in front.`);
  if (!said.duration) { bar.removeAttribute("value"); return say(`Listening: ${clock(said.position, 0)}`); }
  bar.value = said.position / said.duration;
  say(`Listening: ${clock(said.position, 0)} of ${clock(said.duration, 0)}`);
}

byId("ask").addEventListener("submit", async (press) => {
  press.preventDefault();
  const mode = byId("mode").value;
  if (mode === "query" && !byId("query").value.trim()) return complain("Write what to look for, such as: glass breaking.");
  if (mode === "labels" && !byId("labels").querySelector(":checked")) return complain("Choose at least one label.");
  complain("");
  say("Sending the recording.");
  const asked = chosen;
  asking = new AbortController();
  busy(true);
  try {
    result = await events(form(), tell, asking.signal);
    show(asked);
  } catch (error) {
    failed(error);
  } finally {
    asking = null;
    busy(false);
  }
});
byId("stop").addEventListener("click", () => asking?.abort());
function busy(on) {
  byId("find").disabled = on;
  byId("stop").hidden = !on;
  if (!on) byId("progress").hidden = true;
}

// ---------------------------------------------------------------- the answer
const timeline = new Timeline(playFrom);

function show(recording) {
  byId("result").hidden = false;
  const faster = result.real_time_factor ? `, ${(1 / result.real_time_factor).toFixed(1)} times as fast as it plays` : "";
  const kept = result.events.filter((event) => event.kept).length;
  byId("summary").textContent = `${kept} in ${result.file}, ${clock(result.duration)} long; heard in ${result.seconds.toFixed(1)} s${faster}.`;
  byId("notes").replaceChildren(...result.notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
  byId("below").checked = false;
  byId("below").parentElement.hidden = kept === result.events.length;
  say(`${kept} ${kept === 1 ? "event" : "events"} found.`);
  if (player.src) URL.revokeObjectURL(player.src);
  byId("unplayable").hidden = true;
  byId("play").disabled = false;
  player.src = URL.createObjectURL(recording);
  timeline.show(result, server.looks);
  timeline.fill(false);
  byId("result").scrollIntoView({ block: "nearest" });
}
byId("below").addEventListener("change", () => timeline.fill(byId("below").checked));

// ---------------------------------------------------------------- playing
player.addEventListener("error", () => { byId("unplayable").hidden = false; byId("play").disabled = true; });
function playFrom(seconds) {
  player.currentTime = seconds;
  place();
  player.play().catch(() => {});  // what cannot be played is told by its error event
}
const toggle = () => (player.paused ? player.play().catch(() => {}) : player.pause());
function place() {
  if (!result) return;
  byId("clock").textContent = clock(player.currentTime);
  timeline.at(player.currentTime, !player.paused);
}
function run() {
  place();
  if (!player.paused) requestAnimationFrame(run);
}
for (const kind of ["play", "pause"]) player.addEventListener(kind, () => { byId("play").textContent = player.paused ? "Play" : "Pause"; run(); });
player.addEventListener("seeked", place);
byId("play").addEventListener("click", toggle);
byId("before").addEventListener("click", () => timeline.step(player.currentTime, -1));
byId("after").addEventListener("click", () => timeline.step(player.currentTime, 1));
byId("in").addEventListener("click", () => timeline.zoomBy(2, player.currentTime));
byId("out").addEventListener("click", () => timeline.zoomBy(0.5, player.currentTime));

const KEYS = { " ": toggle, n: () => timeline.step(player.currentTime, 1), p: () => timeline.step(player.currentTime, -1), "+": () => timeline.zoomBy(2, player.currentTime), "-": () => timeline.zoomBy(0.5, player.currentTime) };
document.addEventListener("keydown", (press) => {
  const typing = press.target.closest("input, select, textarea") || (press.key === " " && press.target.closest("button, summary, a, label"));
  if (!result || typing || press.ctrlKey || press.metaKey || press.altKey || !KEYS[press.key]) return;
  press.preventDefault();
  KEYS[press.key]();
});

// ---------------------------------------------------------------- downloading
byId("download").addEventListener("click", async () => {
  const format = byId("format").value;
  try {
    const shown = byId("below").checked ? result.events.map((event) => ({ ...event, kept: true })) : result.events;
    const address = URL.createObjectURL(await writeFile({ ...result, events: shown }, format));
    const name = result.file.replace(/\.[^.]*$/, "") + endings[format];
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch (error) {
    failed(error);
  }
});

begin();
