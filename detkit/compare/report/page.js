"use strict";
const R = JSON.parse(document.getElementById("results").textContent);
const NAMES = JSON.parse(document.getElementById("names").textContent);
const METRICS = Object.entries(NAMES.metrics);
const off = new Set();
let metric = "ap";
let order = { column: null, down: true };

R.variants.forEach((v, i) => { v.color = COLORS[i % COLORS.length]; v.dash = DASHES[Math.floor(i / COLORS.length) % DASHES.length]; });
const shown = () => R.variants.filter((v) => !off.has(v.name));
const signed = (v) => (isNumber(v) ? `${v < 0 ? "\u2212" : "+"}${Math.abs(100 * v).toFixed(1)}` : "n/a");
const mean = (values) => { const good = values.filter(isNumber); return good.length ? good.reduce((a, b) => a + b, 0) / good.length : null; };
const median = (values) => { const s = values.filter(isNumber).sort((a, b) => a - b); return s.length ? s[Math.floor(s.length / 2)] : null; };
const summary = (v, key) => (v.summary && v.summary[key]) || { mean: null, std: null, values: [] };
const versus = (v, key) => (v.versus_baseline && v.versus_baseline[key]) || null;
const cost = (v, key) => median(v.cells.map((c) => c.cost && c.cost[key]));
const notFinished = (v) => v.cells.filter((c) => c.status !== "finished");

function metrics() {
  const classes = R.data.classes.map((c) => [`per_class:${c}`, `AP of ${c}`]);
  return [...METRICS, ...classes].filter(([key]) => R.variants.some((v) => summary(v, key).values.some(isNumber)));
}

// ---- controls
function controls() {
  const bar = byId("controls");
  for (const v of R.variants) {
    const line = el("label", {}, bar);
    const box = el("input", { type: "checkbox", checked: "" }, line);
    const swatch = svg("svg", { class: "swatch", viewBox: "0 0 26 10", "aria-hidden": "true" }, line);
    svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, stroke: v.color, "stroke-width": 4, "stroke-dasharray": v.dash || "none" }, swatch);
    line.append(v.label || v.name);
    box.addEventListener("change", () => { box.checked ? off.delete(v.name) : off.add(v.name); draw(); });
  }
  const picker = byId("metric");
  for (const [key, name] of metrics()) el("option", { value: key }, picker, name);
  picker.addEventListener("change", () => { metric = picker.value; drawForest(); });
}

// ---- the table of variants
const COLUMNS = [
  ["Variant", (v) => v.name, (v) => v.label || v.name],
  ["AP", (v) => summary(v, "ap").mean, (v) => `${points(summary(v, "ap").mean)} \u00B1 ${points(summary(v, "ap").std)}`],
  ["every seed", null, (v) => v.cells.map((c) => (c.status === "finished" ? points(c.metrics && c.metrics.ap) : c.status)).join("  ")],
  ["vs baseline", (v) => versus(v, "ap") && versus(v, "ap").difference, (v) => difference(v)],
  ["p", (v) => versus(v, "ap") && versus(v, "ap").p, (v) => (versus(v, "ap") ? short(versus(v, "ap").p) : "")],
  ["p, Holm", (v) => versus(v, "ap") && versus(v, "ap").p_holm, (v) => (versus(v, "ap") ? short(versus(v, "ap").p_holm) : "")],
  ["p, permutation", (v) => versus(v, "ap") && versus(v, "ap").p_permutation, (v) => (versus(v, "ap") ? short(versus(v, "ap").p_permutation) : "")],
  ["verdict", (v) => (versus(v, "ap") ? versus(v, "ap").verdict : ""), (v) => verdict(v)],
  ...METRICS.slice(1).map(([key, name]) => [name, (v) => summary(v, key).mean, (v) => points(summary(v, key).mean)]),
  ["seconds per step", (v) => cost(v, "seconds_per_step"), (v) => short(cost(v, "seconds_per_step"))],
  ["memory, MB", (v) => cost(v, "peak_memory_mb"), (v) => (isNumber(cost(v, "peak_memory_mb")) ? Math.round(cost(v, "peak_memory_mb")) : "n/a")],
];

function difference(v) {
  const d = versus(v, "ap");
  if (!d || !isNumber(d.difference)) return "";
  return `${signed(d.difference)} [${signed(d.low)}, ${signed(d.high)}]`;
}

function verdict(v) {
  if (v.name === R.baseline) return notFinished(v).length ? statuses(v) : "";
  const d = versus(v, "ap");
  return d && d.verdict ? d.verdict : notFinished(v).length ? statuses(v) : "withheld";
}

function statuses(v) {
  const count = {};
  for (const c of notFinished(v)) count[c.status] = (count[c.status] || 0) + 1;
  return Object.entries(count).map(([s, n]) => `${n} ${s}`).join(", ");
}

function drawTable() {
  const table = byId("variants");
  table.replaceChildren();
  const head = el("tr", {}, el("thead", {}, table));
  COLUMNS.forEach(([name, key], i) => {
    const sorted = order.column === i ? (order.down ? "descending" : "ascending") : "none";
    const th = el("th", key ? { scope: "col", "aria-sort": sorted } : { scope: "col" }, head);
    if (!key) { th.textContent = name; return; }
    el("button", { type: "button" }, th, name).addEventListener("click", () => {
      order = { column: i, down: order.column === i ? !order.down : i !== 0 };
      drawTable();
      byId("variants").querySelectorAll("th")[i].querySelector("button").focus();
    });
  });
  const rows = shown();
  if (order.column !== null) {
    const key = COLUMNS[order.column][1];
    const missing = (v) => v === null || v === undefined || v === "";
    rows.sort((a, b) => {
      const x = key(a), y = key(b);
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return (x < y ? -1 : x > y ? 1 : 0) * (order.down ? -1 : 1);
    });
  }
  const body = el("tbody", {}, table);
  for (const v of rows) {
    const tr = el("tr", v.name === R.baseline ? { class: "baseline" } : {}, body);
    for (const [name, , text] of COLUMNS) {
      const value = text(v);
      const kind = name === "verdict" && ["better", "worse", "diverged"].includes(value) ? `${value === "better" ? "better" : "worse"}-text` : "";
      el("td", kind ? { class: kind } : {}, tr, String(value));
    }
  }
}

function drawForest() {
  const figure = byId("forest");
  figure.replaceChildren();
  const scale = (x) => (isNumber(x) ? 100 * x : null);
  const rows = shown().filter((v) => v.name !== R.baseline).map((v) => {
    const d = versus(v, metric) || {};
    return { name: v.label || v.name, color: v.color, value: scale(d.difference), low: scale(d.low), high: scale(d.high), dots: (d.seeds_differences || []).map(scale), verdict: d.verdict || verdict(v) };
  });
  const name = metrics().find(([key]) => key === metric);
  if (rows.length) forest(figure, rows, { title: "Differences to the baseline", xLabel: `${name ? name[1] : metric}, difference to ${R.baseline} in points` });
}

// ---- curves over training
function band(v, pick) {
  const at = new Map();
  for (const cell of v.cells) {
    const [x, y] = pick(cell);
    x.forEach((step, i) => { if (isNumber(y[i])) at.set(step, [...(at.get(step) || []), y[i]]); });
  }
  const x = [...at.keys()].sort((a, b) => a - b), all = x.map((step) => at.get(step));
  return { name: v.label || v.name, color: v.color, dash: v.dash, x, y: all.map(mean), low: all.map((l) => Math.min(...l)), high: all.map((l) => Math.max(...l)) };
}

function drawCurves() {
  const container = byId("curves");
  container.replaceChildren();
  const curve = (key) => (v) => band(v, (c) => [(c.curve && c.curve.step) || [], (c.curve && c.curve[key]) || []]);
  const evals = (key) => (v) => band(v, (c) => [(c.evals || []).map((e) => e.step), (c.evals || []).map((e) => (isNumber(e[key]) ? 100 * e[key] : null))]);
  const add = (title, note, series, yLabel, options) =>
    lineChart(figure(container, title, note), shown().map(series), { title, xLabel: "step", yLabel, ...options });
  add("AP on the validation images", "mean over seeds, band from lowest to highest", evals("ap"), "AP, points", { dots: true });
  add("AP50", "mean over seeds", evals("ap50"), "AP50, points", { dots: true });
  add("Box loss", "comparable where the box loss is the same", curve("loss_box"), "loss");
  add("Classification loss", "each loss in its own units: compare shapes, not heights", curve("loss_classification"), "loss, log scale", { log: true });
}

// ---- diagnosis
const PARTS = [{ name: "foreground", color: "#1b9e77" }, { name: "hard background", color: "#d1600f" }, { name: "easy background", color: "#9aa4ad", ink: "#111" }];
const ERROR_COLORS = ["#2b7bba", "#d1600f", "#7b6bb0", "#a87a05", "#7d7d7d", "#b0539a"];
const ERRORS = NAMES.errors.map((name, i) => ({ name, color: ERROR_COLORS[i] }));

function histogram(v, edges, values) {
  const x = edges.slice(0, -1).map((e, i) => (e + edges[i + 1]) / 2);
  return { name: v.label || v.name, color: v.color, dash: v.dash, x, y: values };
}

function drawDiagnosis() {
  const container = byId("diagnosis");
  container.replaceChildren();
  const having = (key) => shown().filter((v) => v.diagnosis && v.diagnosis[key]);
  if (!shown().some((v) => v.diagnosis)) { el("p", { class: "soft" }, container, "No diagnosis."); return; }
  for (const side of ["foreground", "background"]) {
    const series = having("cumulative").filter((v) => v.diagnosis.cumulative[side]).map((v) => ({ name: v.label || v.name, color: v.color, dash: v.dash, x: v.diagnosis.cumulative[side].fraction, y: v.diagnosis.cumulative[side].loss }));
    lineChart(figure(container, `Cumulative loss of ${side} anchors`, "anchors sorted by loss; the more bent, the more of the loss is in a few hard anchors"),
      series, { title: `Cumulative loss, ${side}`, xLabel: `fraction of ${side} anchors`, yLabel: "share of loss", x: [0, 1], y: [0, 1], diagonal: true });
  }
  const easy = shown().find((v) => v.diagnosis).diagnosis.easy_below;
  for (const what of ["loss", "gradient"]) {
    const rows = having("share").filter((v) => v.diagnosis.share[what]).map((v) => {
      const s = v.diagnosis.share[what];
      return { name: v.label || v.name, color: v.color, parts: [s.foreground, s.hard_background, s.easy_background] };
    });
    if (rows.length) stackedBars(figure(container, `Where the ${what} comes from`, `percent; easy background scores below ${easy} in every class`), rows, PARTS, { title: `Shares of ${what}`, percent: true, most: 1 });
  }
  for (const side of ["foreground", "background"]) {
    lineChart(figure(container, `Scores of ${side} anchors`, side === "foreground" ? "of their own class" : "the highest of all classes"),
      having("scores").map((v) => histogram(v, v.diagnosis.scores.edges, v.diagnosis.scores[side])), { title: `Scores, ${side}`, xLabel: "score", yLabel: "fraction, log scale", x: [0, 1], log: true });
  }
  lineChart(figure(container, "Calibration", "share of correct detections (IoU 0.5) against their score; the diagonal is perfect calibration"),
    having("calibration").map((v) => ({ ...histogram(v, v.diagnosis.calibration.edges, v.diagnosis.calibration.precision), x: v.diagnosis.calibration.confidence, name: `${v.label || v.name}, ECE ${short(v.diagnosis.calibration.ece)}` })),
    { title: "Calibration", xLabel: "score", yLabel: "correct", x: [0, 1], y: [0, 1], diagonal: true, dots: true });
  lineChart(figure(container, "Box quality", "IoU of correct detections with their object"),
    having("box_quality").map((v) => histogram(v, v.diagnosis.box_quality.edges, v.diagnosis.box_quality.fraction)), { title: "Box quality", xLabel: "IoU", yLabel: "fraction" });
  const wrong = having("errors").map((v) => ({ name: v.label || v.name, color: v.color, parts: ERRORS.map(({ name }) => v.diagnosis.errors.counts[name] || 0) }));
  if (wrong.length) stackedBars(figure(container, "Errors", "number of each kind"), wrong, ERRORS, { title: "Errors" });
  const costs = having("errors").filter((v) => v.diagnosis.errors.dap).map((v) => ({ name: v.label || v.name, color: v.color, parts: ERRORS.map(({ name }) => 100 * Math.max(v.diagnosis.errors.dap[name] || 0, 0)) }));
  if (costs.length) stackedBars(figure(container, "Cost of errors", "AP50 points gained if that kind alone were fixed; not additive"), costs, ERRORS, { title: "Cost of errors" });
  const levels = having("positives_per_level");
  if (levels.length) {
    const names = levels[0].diagnosis.positives_per_level.map((l) => l.level);
    stackedBars(figure(container, "Positive anchors per image, by level"), levels.map((v) => ({ name: v.label || v.name, color: v.color, parts: v.diagnosis.positives_per_level.map((l) => l.per_image) })),
      names.map((name, i) => ({ name, color: COLORS[i % COLORS.length] })), { title: "Positives by level" });
  }
}

// ---- images
function drawSamples() {
  const container = byId("samples");
  container.replaceChildren();
  if (!(R.samples || []).length) { el("p", { class: "soft" }, container, "No sample images."); return; }
  for (const sample of R.samples) {
    const row = el("div", { class: "samples" }, container);
    picture(row, sample, sample.truth.map((t) => ({ ...t, correct: true })), "ground truth", false);
    for (const v of shown()) {
      const boxes = sample.detections[v.name];
      if (boxes) picture(row, sample, boxes, `${v.label || v.name}: ${boxes.filter((d) => d.correct).length} correct, ${boxes.filter((d) => !d.correct).length} wrong`, true);
    }
  }
}

// ---- plain tables
function drawPlain() {
  const show = (value) => (value === null || value === undefined ? "null" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const stateOf = (c) => c.ok === null ? ["? not known", "notok"] : c.ok ? ["\u2713 ok", "ok"] : c.withholds === false ? ["\u2260 differs", "notok"] : ["\u2717 NOT EQUAL", "notok"];
  table("fairness", ["check", "", "detail"], R.fairness.checks.map((c) => [[c.name], stateOf(c), [c.detail || ""]]));
  const flags = byId("flags");
  for (const flag of R.fairness.flags || []) el("li", { class: "withheld" }, flags, flag);
  table("differs", ["key", ...R.variants.map((v) => v.label || v.name)], (R.fairness.differs || []).map((d) => [[d.key], ...R.variants.map((v) => [v.name in d.values ? show(d.values[v.name]) : "\u2013"])]));
  table("start", ["variant", "seed", "foreground probability", "gradient norm, class", "gradient norm, box", "box / class"], R.variants.flatMap((v) => v.cells.filter((c) => c.step0).map((c) => [[v.label || v.name], [String(c.seed)], [short(c.step0.foreground_probability)], [short(c.step0.grad_norm_class)], [short(c.step0.grad_norm_box)], [short(c.step0.ratio)]])));
  const missing = R.variants.flatMap((v) => notFinished(v).map((c) => [[v.label || v.name], [String(c.seed)], [c.status, "notok"], [c.error || ""]]));
  if (missing.length) table("missing", ["variant", "seed", "state", "error"], missing); else byId("missing-section").remove();
  if (R.tuning) byId("tuning").textContent = JSON.stringify(R.tuning, null, 1); else byId("tuning-section").remove();
}

function draw() { drawTable(); drawForest(); drawCurves(); drawDiagnosis(); drawSamples(); }

controls();
drawPlain();
draw();
