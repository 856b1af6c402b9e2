// ---------------------------------------------------------------- tables: runs, comparison, classes, settings
function table(heads, rows, { note = "", texts = false } = {}) {
  const head = node("tr", {}, ...heads.map((text) => node("th", { scope: "col" }, text)));
  const body = node("tbody", {}, ...rows.map((cells) => node("tr", {}, ...cells.map((cell, k) => {
    const { text, best } = typeof cell === "object" ? cell : { text: cell };
    return k === 0 ? node("th", { scope: "row" }, text) : node("td", best ? { class: "best" } : {}, text);
  }))));
  const made = node("table", texts ? { class: "texts" } : {}, node("thead", {}, head), body);
  return note ? node("div", {}, made, node("p", { class: "note" }, note)) : made;
}
function nameOf(key) {
  const parts = key.split("/"), metric = parts.pop();
  return [...parts, data.metrics[metric] ? data.metrics[metric][0] : metric.replaceAll("_", " ")].join(": ");
}
const kindOf = (key) => data.metrics[key.split("/").pop()] || ["", ".3f", ""];
function shown(key, value) {
  if (value === undefined || value === null) return "\u2013";
  const [, format] = kindOf(key);
  return format === "d" ? String(value) : format === ".1%" ? (100 * value).toFixed(1) + " %" : value.toFixed(3);
}
function marked(values, better) {
  const known = values.filter((v) => v !== undefined && v !== null);
  const best = better === "-" ? Math.min(...known) : Math.max(...known);
  return values.map((v) => better !== "" && known.length > 1 && v === best);
}
function comparison() {
  const keys = [];
  for (const system of data.systems) for (const key of Object.keys(system.metrics)) if (!keys.includes(key)) keys.push(key);
  const mains = Object.entries(data.main).map(([task, metric]) => [`${task}/${metric}`, metric].find((key) => keys.includes(key)));
  const ordered = [...mains.filter(Boolean), ...keys.filter((key) => !mains.includes(key))];
  let rows = ordered.map((key) => {
    const values = data.systems.map((system) => system.metrics[key]);
    const best = marked(values, kindOf(key)[2]);
    return [nameOf(key), ...values.map((value, k) => ({ text: shown(key, value), best: best[k] }))];
  });
  if (last > 0) for (const [task, metric] of Object.entries(data.main).reverse()) {
    const cells = data.systems.map((system) => {
      const gain = system.gain && system.gain[task];
      return gain ? `${signed(gain[0], 3)} [${signed(gain[1], 3)}, ${signed(gain[2], 3)}]` : "";
    });
    rows.unshift([`${nameOf(metric)} over ${data.systems[0].name} (${task}), 95 % interval`, ...cells]);
  }
  let heads = ["metric", ...data.systems.map((s) => s.name)];
  if (data.systems.length > 5) [heads, ...rows] = heads.map((head, k) => [k ? head : "system", ...rows.map((row) => (k ? row[k] : row[0]))]);
  byId("comparison").append(table(heads, rows));
}
function classes() {
  if (!data.classes.length) { byId("classes-section").remove(); return; }
  const full = data.systems.length <= 3, kinds = full ? ["F1", "precision", "recall"] : ["F1"];
  const heads = ["class", "events", ...data.systems.flatMap((s) => kinds.map((kind) => (data.systems.length > 1 ? `${s.name}: ${kind}` : kind)))];
  const rows = data.classes.map((row) => {
    const cells = new Array(data.systems.length * kinds.length);
    kinds.forEach((kind, q) => {
      const values = row.scores.map((scores) => scores[q]), best = marked(values, "+");
      values.forEach((value, k) => { cells[k * kinds.length + q] = { text: value === null ? "\u2013" : value.toFixed(3), best: best[k] }; });
    });
    const swatch = node("i"), look = data.looks.labels[row.label];
    if (look) dress(swatch, row.label);
    return [{ text: node("span", { class: "class" }, swatch, row.label) }, String(row.events), ...cells];
  });
  byId("classes").append(table(heads, rows, { note: "Event-based F1, onset within 0.2 s, offset within 0.2 s or 20 % of the event; events: in the reference." }));
}
function runs() {
  const keys = ["seed", "task", "rewards", "started", "commit"];
  byId("runs").append(table(["run", ...keys], data.runs.map((run) => [run.name, ...keys.map((key) => run[key])]), { texts: true }));
  if (data.differences.length) {
    const heads = ["setting", ...data.runs.map((run) => run.name)];
    const differing = node("div", { class: "scroll" }, table(heads, data.differences, { texts: true }));
    byId("settings").append(node("h3", {}, "Settings that differ"), differing);
  }
  for (const run of data.runs) {
    if (!run.settings) continue;
    byId("settings").append(node("details", {}, node("summary", {}, `all settings of ${run.name}`), node("pre", {}, run.settings)));
  }
  if (!byId("settings").childElementCount) byId("settings").append(node("p", { class: "note" }, "The runs have no config.yaml."));
  byId("written").textContent = `Written ${data.written}.`;
}
