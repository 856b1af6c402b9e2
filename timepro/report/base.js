// What the other parts share: the data, making elements, and how labels look.
const data = JSON.parse(document.getElementById("data").textContent);
const LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const DASHES = ["none", "6 3", "2 3", "9 3 2 3"];
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
const signed = (x, digits) => (x >= 0 ? "+" : "\u2212") + Math.abs(x).toFixed(digits);

// A label's colour and hatch are those of the run's other pictures.
const HATCH = {
  "////": (ink) => `repeating-linear-gradient(135deg, ${ink} 0 1px, transparent 1px 6px)`,
  "\\\\\\\\": (ink) => `repeating-linear-gradient(45deg, ${ink} 0 1px, transparent 1px 6px)`,
  "xxxx": (ink) => `repeating-linear-gradient(45deg, ${ink} 0 1px, transparent 1px 6px), repeating-linear-gradient(135deg, ${ink} 0 1px, transparent 1px 6px)`,
  "....": (ink) => `radial-gradient(${ink} 1px, transparent 1.4px) 0 0 / 6px 6px`,
};
function dress(element, label) {
  const [colour, hatch, ink, known] = data.looks.labels[label];
  if (!known) { element.classList.add("stranger"); return; }
  element.style.background = hatch ? `${HATCH[hatch](ink)}, ${colour}` : colour;
  element.style.color = ink;
}
function legend() {
  const made = node("p", { class: "legend" });
  const entries = Object.entries(data.looks.labels).filter(([label, look]) => label && look[3]).map(([label]) => label);
  if (data.looks.distinct) for (const label of entries.sort()) {
    const swatch = node("i");
    dress(swatch, label);
    made.append(node("span", {}, swatch, label));
  }
  if (Object.values(data.looks.labels).some((look) => !look[3])) made.append(node("span", {}, node("i", { class: "stranger" }), "not a class of the run"));
  made.append(node("span", {}, node("i", { class: "collar" }), "collar of event-based F1 around the reference"));
  if (data.looks.note) made.append(node("span", {}, data.looks.note));
  return made;
}
