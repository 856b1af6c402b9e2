// ---------------------------------------------------------------- curves
function curve(panel) {
  const W = 320, H = 150, L = 54, B = 20;
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
  for (const [v, anchor, text] of [[0, "start", "0"], [x1 / 2, "middle", "step"], [x1, "end", String(x1)]]) {
    const mark = svg("text", { x: x(v), y: H - 6, "text-anchor": anchor });
    mark.textContent = text;
    picture.append(mark);
  }
  panel.series.forEach((series, k) => {
    const line = series.points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ");
    const title = svg("title", {});
    title.textContent = series.name;
    picture.append(svg("polyline", { points: line, fill: "none", stroke: LINES[k % LINES.length], "stroke-dasharray": DASHES[Math.floor(k / LINES.length) % DASHES.length], "stroke-width": 1.6 }, title));
  });
  const caption = node("figcaption", {}, panel.title);
  if (panel.series.length > 1) panel.series.forEach((s, k) => caption.append(" ", node("span", { style: `color:${LINES[k % LINES.length]}` }, `\u25a0 ${s.name}`)));
  return node("figure", {}, picture, caption);
}
