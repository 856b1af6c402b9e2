// The picture with its lanes: a lane a label, an event a button; zoom, playhead, moving between events by keyboard.
import { dress, paint } from "./looks.js";

const byId = (id) => document.getElementById(id);
const MOST_TICKS = 400;
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];

export function clock(seconds, digits = 2) {
  const whole = digits ? Math.round(seconds * 10 ** digits) : Math.floor(seconds);
  const rest = whole % (60 * 10 ** digits);
  const minutes = Math.round((whole - rest) / (60 * 10 ** digits));
  const end = (rest / 10 ** digits).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return minutes < 60 ? `${minutes}:${end}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${end}`;
}

const sure = (event) => (event.confidence === null ? "" : `${Math.round(100 * event.confidence)} %`);
const told = (event) => [event.label, `${clock(event.onset)} to ${clock(event.offset)}`, sure(event)].filter(Boolean).join(", ");

export class Timeline {
  // `play` is called with the second to play from.
  constructor(play) {
    this.play = play;
    this.zoom = 1;
    this.events = [];
    this.buttons = [];
    this.duration = 0;
    byId("picture").addEventListener("click", (press) => play((press.offsetX / byId("picture").clientWidth) * this.duration));
    byId("timeline").addEventListener("keydown", (press) => this.key(press));
    new ResizeObserver(() => this.axis()).observe(byId("timeline"));
  }

  show(result, looks) {
    this.result = result;
    this.looks = looks;
    this.duration = result.duration;
    this.zoom = 1;
    byId("picture").hidden = !result.spectrogram;
    byId("resolution").textContent = "";
    if (result.spectrogram) {
      paint(byId("picture"), result.spectrogram);
      const step = result.spectrogram.seconds_per_column;
      if (step > 0.01) byId("resolution").textContent = `A column of the picture stands for ${step.toFixed(2)} s; the events' times are exact to what the model said.`;
    }
    this.scale();
  }

  // Shows the events that are kept, or all.
  fill(all) {
    this.events = this.result.events.filter((event) => all || event.kept).sort((a, b) => a.onset - b.onset);
    const labels = [...new Set(this.events.map((event) => event.label))].sort();
    const tracks = new Map();
    byId("lanes").replaceChildren(...labels.map((label, place) => {
      const [lane, name, swatch, track] = ["div", "span", "i", "div"].map((tag) => document.createElement(tag));
      lane.className = "lane"; track.className = "track";
      dress(swatch, label, place, this.looks);
      name.append(swatch, label);
      lane.append(name, track);
      tracks.set(label, { track, place });
      return lane;
    }));
    this.buttons = this.events.map((event, i) => {
      const button = document.createElement("button");
      const { track, place } = tracks.get(event.label);
      button.type = "button";
      button.tabIndex = -1;
      button.title = told(event);
      button.setAttribute("aria-label", `Play from ${told(event)}`);
      button.classList.toggle("below", !event.kept);
      button.style.left = `${(100 * event.onset) / this.duration}%`;
      button.style.width = `${(100 * (event.offset - event.onset)) / this.duration}%`;
      dress(button, event.label, place, this.looks);
      button.addEventListener("click", () => { this.choose(i); this.play(event.onset); });
      track.append(button);
      return button;
    });
    if (this.buttons.length) this.buttons[0].tabIndex = 0;
    byId("rows").replaceChildren(...this.events.map((event) => this.row(event)));
  }

  row(event) {
    const row = document.createElement("tr");
    row.classList.toggle("below", !event.kept);
    const from = document.createElement("button");
    from.type = "button";
    from.textContent = clock(event.onset);
    from.setAttribute("aria-label", `Play from ${clock(event.onset)}`);
    from.addEventListener("click", () => this.play(event.onset));
    for (const content of [from, clock(event.offset), event.label, sure(event)]) {
      const cell = document.createElement("td");
      cell.append(content);
      row.append(cell);
    }
    return row;
  }

  // Makes an event the one that Tab leads to, and brings it into view.
  choose(i, focus = false) {
    this.buttons.forEach((button, k) => { button.tabIndex = k === i ? 0 : -1; });
    this.chosen = i;
    if (focus) this.buttons[i].focus({ preventScroll: true });
    this.into(this.events[i].onset);
    byId("rows").children[i]?.scrollIntoView({ block: "nearest" });
  }

  // The event before or after a second, and played from.
  step(from, by) {
    const times = this.events.map((event) => event.onset);
    const i = by > 0 ? times.findIndex((time) => time > from + 0.01) : times.findLastIndex((time) => time < from - 0.3);
    if (i < 0) return;
    this.choose(i);
    this.play(times[i]);
  }

  key(press) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[press.key];
    const edge = { Home: 0, End: this.buttons.length - 1 }[press.key];
    if ((by === undefined && edge === undefined) || !this.buttons.length || press.ctrlKey || press.metaKey || press.altKey) return;
    press.preventDefault();
    const at = this.buttons.indexOf(document.activeElement);
    const next = edge ?? (at < 0 ? 0 : at + by);
    this.choose(Math.max(0, Math.min(this.buttons.length - 1, next)), true);
  }

  // Zooms by a factor, the second `at` staying where it is.
  zoomBy(factor, at) {
    const most = Math.max(1, this.duration / 2);
    this.zoom = Math.max(1, Math.min(most, this.zoom * factor));
    this.scale();
    const box = byId("timeline");
    box.scrollLeft = (at / this.duration) * byId("inner").clientWidth - box.clientWidth / 2;
    this.axis();
  }

  scale() {
    byId("inner").style.width = `${100 * this.zoom}%`;
    byId("in").disabled = this.zoom >= Math.max(1, this.duration / 2);
    byId("out").disabled = this.zoom <= 1;
    this.axis();
  }

  axis() {
    if (!this.duration) return;
    const width = byId("inner").clientWidth;
    const fits = Math.max(1, Math.min(MOST_TICKS, width / 70));
    const step = STEPS.find((s) => this.duration / s <= fits) ?? STEPS.at(-1);
    const marks = [];
    for (let i = 0; i * step < this.duration; i++) {
      const mark = document.createElement("span");
      mark.textContent = clock(i * step, step < 1 ? 1 : 0);
      mark.style.left = `${(100 * i * step) / this.duration}%`;
      marks.push(mark);
    }
    byId("axis").replaceChildren(...marks);
  }

  // Moves the playhead, and the view with it.
  at(seconds, follow) {
    byId("now").style.left = `${(100 * seconds) / this.duration}%`;
    if (follow) this.into(seconds);
  }

  into(seconds) {
    const box = byId("timeline");
    const x = (seconds / this.duration) * byId("inner").clientWidth;
    if (x < box.scrollLeft || x > box.scrollLeft + 0.95 * box.clientWidth) box.scrollLeft = x - 0.1 * box.clientWidth;
  }
}
