"use strict";
// What every report draws: small charts in SVG, pictures with boxes, tables. Text goes in as text nodes only, so no name can become markup.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 520, HEIGHT = 300, LEFT = 54, RIGHT = 12, TOP = 10, BOTTOM = 42;

const COLORS = ["#2b7bba", "#d1600f", "#1b9e77", "#b0539a", "#a87a05", "#4a9bd0", "#7b6bb0", "#7d7d7d"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];

const el = (tag, ...rest) => build(document.createElement(tag), ...rest);
const svg = (tag, ...rest) => build(document.createElementNS(SVG, tag), ...rest);

function build(node, attributes, parent, text) {
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

const byId = (id) => document.getElementById(id);
const isNumber = (v) => typeof v === "number" && Number.isFinite(v);

const points = (v, digits = 1) => (isNumber(v) ? (100 * v).toFixed(digits) : "n/a");

function short(v) {
  if (!isNumber(v)) return "n/a";
  if (v === 0) return "0";
  const size = Math.abs(v);
  if (size >= 1e5 || size < 1e-3) return v.toExponential(1);
  return String(Number(v.toPrecision(3)));
}

function ticks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1) || 1;
  const base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * base).find((s) => s >= raw);
  const values = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) values.push(Number(v.toPrecision(12)));
  return values;
}

function frame(figure, options) {
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": options.title }, figure);
  const [x0, x1] = options.x, [y0, y1] = options.y;
  const sx = (v) => LEFT + ((v - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - RIGHT);
  const sy = (v) => HEIGHT - BOTTOM - ((v - y0) / (y1 - y0 || 1)) * (HEIGHT - TOP - BOTTOM);
  for (const v of ticks(y0, y1, 5)) {
    svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: sy(v), y2: sy(v), class: "axis" }, root);
    svg("text", { x: LEFT - 6, y: sy(v) + 4, "text-anchor": "end" }, root, options.log ? short(10 ** v) : short(v));
  }
  for (const v of options.xTicks || ticks(x0, x1, 6)) {
    svg("text", { x: sx(v), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, root, short(v));
  }
  svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, root, options.xLabel);
  svg("text", { transform: `translate(13 ${(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)`, "text-anchor": "middle" }, root, options.yLabel);
  return { root, sx, sy };
}

function extent(values, pad) {
  const good = values.filter(isNumber);
  if (!good.length) return [0, 1];
  let low = Math.min(...good), high = Math.max(...good);
  if (low === high) { low -= Math.abs(low) * 0.1 || 0.5; high += Math.abs(high) * 0.1 || 0.5; }
  const margin = (high - low) * (pad || 0);
  return [low - margin, high + margin];
}

function pathOf(x, y, sx, sy) {
  let path = "", pen = false;
  x.forEach((v, i) => {
    if (!isNumber(v) || !isNumber(y[i])) { pen = false; return; }
    path += `${pen ? "L" : "M"}${sx(v).toFixed(1)} ${sy(y[i]).toFixed(1)}`;
    pen = true;
  });
  return path;
}

// series: [{name, color, dash, x, y, low, high}], all of a series' arrays of one length.
// log: the y axis is logarithmic; what is not above zero has no place on it.
function lineChart(figure, series, options) {
  const logs = (values) => values && values.map((v) => (isNumber(v) && v > 0 ? Math.log10(v) : null));
  const drawn = series.filter((s) => s.x.length).map((s) => (options.log ? { ...s, y: logs(s.y), low: logs(s.low), high: logs(s.high) } : s));
  if (!drawn.length) { el("p", { class: "soft" }, figure, options.empty || "Nothing was recorded."); return; }
  const x = options.x || extent(drawn.flatMap((s) => s.x));
  const y = options.y || extent(drawn.flatMap((s) => [...s.y, ...(s.low || []), ...(s.high || [])]), 0.04);
  const { root, sx, sy } = frame(figure, { ...options, x, y });
  if (options.diagonal) svg("path", { d: `M${sx(x[0])} ${sy(x[0])}L${sx(x[1])} ${sy(x[1])}`, class: "axis" }, root);
  for (const s of drawn) {
    if (s.low && s.low.some(isNumber)) {
      const keep = s.x.map((_, i) => i).filter((i) => isNumber(s.low[i]) && isNumber(s.high[i]));
      const ring = [...keep.map((i) => [s.x[i], s.high[i]]), ...keep.reverse().map((i) => [s.x[i], s.low[i]])];
      svg("polygon", { points: ring.map(([a, b]) => `${sx(a).toFixed(1)},${sy(b).toFixed(1)}`).join(" "), fill: s.color, opacity: 0.16 }, root);
    }
  }
  for (const s of drawn) {
    svg("path", { d: pathOf(s.x, s.y, sx, sy), fill: "none", stroke: s.color, "stroke-width": 1.8, "stroke-dasharray": s.dash || "none" }, root);
    if (s.x.length === 1 || options.dots) {
      s.x.forEach((v, i) => isNumber(v) && isNumber(s.y[i]) && svg("circle", { cx: sx(v), cy: sy(s.y[i]), r: 2.6, fill: s.color }, root));
    }
  }
  hover(figure, root, drawn, options, { x, sx });
}

// The values of every line at the x under the pointer.
function hover(figure, root, series, options, { x, sx }) {
  const tip = el("div", { class: "tip", hidden: "" }, figure);
  const say = (v) => short(options.log ? 10 ** v : v);
  const cursor = svg("line", { y1: TOP, y2: HEIGHT - BOTTOM, class: "cursor", visibility: "hidden" }, root);
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const at = x[0] + (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * (x[1] - x[0]);
    const all = series.flatMap((s) => s.x.filter(isNumber));
    const nearest = all.reduce((best, v) => (Math.abs(v - at) < Math.abs(best - at) ? v : best), all[0]);
    cursor.setAttribute("x1", sx(nearest)); cursor.setAttribute("x2", sx(nearest)); cursor.setAttribute("visibility", "visible");
    tip.replaceChildren();
    el("strong", {}, tip, `${options.xLabel} ${short(nearest)}`);
    for (const s of series) {
      const i = s.x.indexOf(nearest);
      if (i < 0 || !isNumber(s.y[i])) continue;
      const spread = s.low && isNumber(s.low[i]) && s.low[i] !== s.high[i] ? ` (${say(s.low[i])} to ${say(s.high[i])})` : "";
      const line = el("div", {}, tip);
      el("span", { style: `color:${s.color}` }, line, "\u25A0 ");
      line.append(`${s.name}: ${say(s.y[i])}${spread}`);
    }
    tip.hidden = false;
    const left = event.clientX - box.left, space = figure.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(left + 14, space))}px`;
    tip.style.top = `${event.clientY - figure.getBoundingClientRect().top + 14}px`;
  });
  root.addEventListener("pointerleave", () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); });
}

// rows: [{name, color, parts: [number]}], kinds: [{name, color}]. One bar a row, cut into parts.
function stackedBars(figure, rows, kinds, options) {
  const height = 26 * rows.length + 64, most = options.most || Math.max(...rows.map((r) => r.parts.reduce((a, b) => a + b, 0)), 1e-9);
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": options.title }, figure);
  const left = 150, scale = (WIDTH - left - RIGHT) / most;
  rows.forEach((row, i) => {
    const y = 6 + 26 * i;
    label(root, row.name, left - 6, y + 14);
    let x = left;
    row.parts.forEach((value, k) => {
      const bar = svg("rect", { x, y, width: Math.max(value * scale, 0), height: 19, fill: kinds[k].color }, root);
      svg("title", {}, bar, `${row.name}, ${kinds[k].name}: ${options.percent ? (100 * value).toFixed(1) + " %" : short(value)}`);
      const text = options.percent ? `${Math.round(100 * value)}` : short(value);
      if (value * scale > 8 * text.length + 6) svg("text", { x: x + (value * scale) / 2, y: y + 14, "text-anchor": "middle", style: `fill:${kinds[k].ink || "#fff"}` }, root, text);
      x += value * scale;
    });
  });
  let x = 4, y = 26 * rows.length + 24;
  for (const kind of kinds) {
    const width = 28 + 7.2 * kind.name.length;
    if (x + width > WIDTH) { x = 4; y += 18; }
    svg("rect", { x, y: y - 10, width: 12, height: 12, fill: kind.color }, root);
    svg("text", { x: x + 16, y }, root, kind.name);
    x += width;
  }
  root.setAttribute("viewBox", `0 0 ${WIDTH} ${y + 8}`);
}

function label(root, name, x, y) {
  const cut = name.length > 21 ? `${name.slice(0, 20)}\u2026` : name;
  svg("title", {}, svg("text", { x, y, "text-anchor": "end", class: "strong" }, root, cut), name);
}

// rows: [{name, color, parts: [number]}]: a bar each, with its number behind it.
function plainBars(figure, rows, options) {
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${26 * rows.length + 8}`, role: "img", "aria-label": options.title }, figure);
  const left = 150, scale = (WIDTH - left - 60) / (options.most || 1);
  rows.forEach((row, i) => {
    const y = 6 + 26 * i, length = row.parts[0] * scale;
    label(root, row.name, left - 6, y + 14);
    svg("rect", { x: left, y, width: length, height: 19, fill: row.color }, root);
    svg("text", { x: left + length + 6, y: y + 14 }, root, short(row.parts[0]));
  });
}

// names: of the groups, from left to right. series: [{name, color, values}], a column each in every group.
function columns(figure, names, series, options) {
  const most = Math.max(...series.flatMap((s) => s.values), 1), every = Math.ceil(names.length / 10);
  const { root, sx, sy } = frame(figure, { ...options, x: [0, names.length], y: [0, most], xTicks: [] });
  const width = (sx(1) - sx(0)) * 0.86 / series.length;
  names.forEach((name, i) => {
    if (i % every === 0) svg("text", { x: sx(i + 0.5), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, root, name);
    series.forEach((s, k) => {
      const bar = svg("rect", { x: sx(i + 0.07) + k * width, y: sy(s.values[i]), width, height: sy(0) - sy(s.values[i]), fill: s.color }, root);
      svg("title", {}, bar, `${name}: ${s.values[i]} ${s.name}`);
    });
  });
  if (series.length < 2) return;
  const list = el("ul", { class: "legend" }, figure);
  for (const s of series) {
    const item = el("li", {}, list);
    el("span", { style: `color:${s.color}` }, item, "\u25A0");
    item.append(s.name);
  }
}

// rows: [{name, color, value, low, high, dots, verdict}]: differences with their intervals around a zero line.
function forest(figure, rows, options) {
  const height = 30 * rows.length + 50, left = 150;
  const [low, high] = extent([0, ...rows.flatMap((r) => [r.value, r.low, r.high, ...(r.dots || [])])], 0.06);
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": options.title }, figure);
  const sx = (v) => left + ((v - low) / (high - low)) * (WIDTH - left - RIGHT);
  for (const v of ticks(low, high, 6)) {
    svg("line", { x1: sx(v), x2: sx(v), y1: 4, y2: height - 40, class: v === 0 ? "zero" : "axis" }, root);
    svg("text", { x: sx(v), y: height - 24, "text-anchor": "middle" }, root, short(v));
  }
  rows.forEach((row, i) => {
    const y = 19 + 30 * i;
    label(root, row.name, left - 6, y + 4);
    if (!isNumber(row.value)) { svg("text", { x: left + 4, y: y + 4 }, root, row.verdict || "n/a"); return; }
    if (isNumber(row.low)) svg("line", { x1: sx(row.low), x2: sx(row.high), y1: y, y2: y, stroke: row.color, "stroke-width": 3 }, root);
    for (const dot of row.dots || []) if (isNumber(dot)) svg("circle", { cx: sx(dot), cy: y + 9, r: 2.2, fill: row.color, opacity: 0.7 }, root);
    const mark = svg("rect", { x: sx(row.value) - 5, y: y - 5, width: 10, height: 10, fill: row.color }, root);
    svg("title", {}, mark, `${row.name}: ${short(row.value)} (${short(row.low)} to ${short(row.high)}), ${row.verdict || ""}`);
  });
  svg("text", { x: (left + WIDTH) / 2, y: height - 6, "text-anchor": "middle" }, root, options.xLabel);
}

function figure(parent, title, note) {
  const box = el("figure", { class: "figure" }, parent);
  el("h3", {}, box, title);
  if (note) el("small", {}, box, note);
  return box;
}

// An image with boxes on it: [{box, label, score, correct}].
function picture(row, sample, boxes, caption, dashed, names) {
  const box = el("figure", {}, row);
  const root = svg("svg", { viewBox: `0 0 ${sample.width} ${sample.height}`, role: "img", "aria-label": caption }, box);
  svg("image", { href: sample.image, width: sample.width, height: sample.height }, root);
  const pen = Math.max(sample.width, sample.height) / 160, tags = [];
  for (const b of boxes) {
    const [x1, y1, x2, y2] = b.box, text = isNumber(b.score) ? `${b.label} ${b.score.toFixed(2)}` : b.label;
    const color = b.correct ? "#3fd07f" : "#ff7b3a";
    const rect = svg("rect", { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0), fill: "none", stroke: color, "stroke-width": pen, "stroke-dasharray": dashed && !b.correct ? `${3 * pen} ${2 * pen}` : "none" }, root);
    svg("title", {}, rect, text);
    if (names && boxes.length <= 12) tags.push([x1, y1, text]);
  }
  for (const [x, y, text] of tags) {
    const size = 7 * pen, left = Math.min(Math.max(x, 2), Math.max(sample.width - 0.6 * size * text.length, 2));
    svg("text", { x: left, y: Math.min(Math.max(y - pen, size), sample.height - 3), class: "tag", style: `font-size:${size}px` }, root, text);
  }
  el("figcaption", {}, box, caption);
}

// rows: [[text, class of the cell]].
function table(id, heads, rows) {
  const node = byId(id);
  const tr = el("tr", {}, el("thead", {}, node));
  heads.forEach((h) => el("th", { scope: "col", class: "text" }, tr, h));
  const body = el("tbody", {}, node);
  for (const row of rows) {
    const line = el("tr", {}, body);
    row.forEach(([text, kind]) => el("td", { class: `text ${kind || ""}` }, line, text));
  }
}

window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
