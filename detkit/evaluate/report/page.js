"use strict";
const R = JSON.parse(document.getElementById("results").textContent);
const NAMES = JSON.parse(document.getElementById("names").textContent);
const ERROR_COLORS = ["#2b7bba", "#d1600f", "#7b6bb0", "#a87a05", "#7d7d7d", "#b0539a"];
const FEW = 8; // classes up to which each has a line of its own in the curves
const two = (v) => (isNumber(v) ? v.toFixed(2) : "n/a");
const spread = (r) => (isNumber(r.low) ? `${points(r.low)} to ${points(r.high)}` : "");

// ---- tables: columns: [[head, key to sort by or null, text]]
function sortable(id, columns, rows) {
  const node = byId(id);
  let order = { column: null, down: true };
  const draw = () => {
    node.replaceChildren();
    const head = el("tr", {}, el("thead", {}, node));
    columns.forEach(([name, key], i) => {
      const sorted = order.column === i ? (order.down ? "descending" : "ascending") : "none";
      const th = el("th", key ? { scope: "col", "aria-sort": sorted } : { scope: "col" }, head);
      if (!key) { th.textContent = name; return; }
      el("button", { type: "button" }, th, name).addEventListener("click", () => {
        order = { column: i, down: order.column === i ? !order.down : i !== 0 };
        draw();
        node.querySelectorAll("th")[i].querySelector("button").focus();
      });
    });
    const [all, ...classes] = rows;
    if (order.column !== null) {
      const key = columns[order.column][1];
      const missing = (v) => v === null || v === undefined || v === "";
      classes.sort((a, b) => {
        const x = key(a), y = key(b);
        if (missing(x) || missing(y)) return missing(x) - missing(y);
        return (x < y ? -1 : x > y ? 1 : 0) * (order.down ? -1 : 1);
      });
    }
    const body = el("tbody", {}, node);
    for (const row of [all, ...classes]) {
      const tr = el("tr", row === all ? { class: "all" } : {}, body);
      columns.forEach(([, , text], i) => el("td", i === 0 ? { class: "name" } : {}, tr, text(row)));
    }
  };
  draw();
}

function tables() {
  const name = ["class", (r) => r.name, (r) => r.name];
  const count = (area) => ["objects", (r) => r.objects[area], (r) => String(r.objects[area])];
  const metric = (key, head) => [head, (r) => r.metrics[key], (r) => points(r.metrics[key])];
  const best = (key, head) => [head, (r) => r.best && r.best[key], (r) => (r.best ? two(r.best[key]) : "n/a")];
  const [ap, ...others] = Object.entries(R.data.metrics);
  sortable("classes", [
    name, count("all"), metric(...ap), ["interval", null, spread], ...others.map((m) => metric(...m)),
    best("threshold", "threshold"), best("f1", "F1"), best("precision", "precision"), best("recall", "recall"),
  ], R.rows);
  sortable("ious", [name, ...R.ious.map((iou, t) => [iou.toFixed(2), (r) => r.by_iou[t], (r) => points(r.by_iou[t])])], R.rows);
  const [small, medium] = R.data.areas.map((a) => short(Math.sqrt(a)));
  const sizes = [["small", `small, to ${small}\u00B2 px`], ["medium", `medium, to ${medium}\u00B2 px`], ["large", "large"]];
  sortable("sizes", [name, ...sizes.flatMap(([area, head]) => [metric(`ap_${area}`, head), count(area)])], R.rows);
}

// ---- curves: all classes as a thick line, and the chosen one, or each of a few
function drawCurves(chosen) {
  const container = byId("curves"), C = R.curves;
  container.replaceChildren();
  const few = R.data.classes.length <= FEW;
  const lines = chosen > 0 ? [0, chosen] : few ? R.rows.map((_, i) => i) : [0];
  const series = (x, key) => lines.filter((i) => C[key][i].some(isNumber)).map((i) => ({
    name: R.rows[i].name, x, y: C[key][i],
    color: i === 0 ? "#555e68" : COLORS[(few ? i - 1 : 0) % COLORS.length], dash: i === 0 && lines.length > 1 ? "7 3" : "",
  }));
  const add = (title, note, drawn, options) => {
    const box = figure(container, title, note);
    lineChart(box, drawn, { title, x: [0, 1], y: [0, 1], empty: "There is nothing to draw.", ...options });
    legend(box, drawn);
  };
  add("Precision over recall", "at IoU 0.5, interpolated as in COCO; the area below is AP50", series(C.recalls, "precision_over_recall"), { xLabel: "recall", yLabel: "precision" });
  add("F1 over score", mark(chosen), series(C.thresholds, "f1"), { xLabel: "lowest score", yLabel: "F1" });
  add("Precision over score", "of the detections whose score reaches the threshold", series(C.thresholds, "precision"), { xLabel: "lowest score", yLabel: "precision" });
  add("Recall over score", "", series(C.thresholds, "recall"), { xLabel: "lowest score", yLabel: "recall" });
  if (chosen === 0) {
    const drawn = Object.entries(C.by_iou).map(([iou, y], i) => ({ name: `IoU ${iou}`, color: COLORS[i], x: C.recalls, y })).filter((s) => s.y.some(isNumber));
    add("Precision over recall, by IoU", "mean over the classes", drawn, { xLabel: "recall", yLabel: "precision" });
  }
}

function mark(chosen) {
  const best = R.rows[chosen].best;
  return best ? `best at a score of ${two(best.threshold)}: F1 ${two(best.f1)}` : "no detection is right";
}

function legend(box, drawn) {
  if (drawn.length < 2) return;
  const list = el("ul", { class: "legend" }, box);
  for (const s of drawn) {
    const item = el("li", {}, list);
    const swatch = svg("svg", { class: "swatch", viewBox: "0 0 26 10", "aria-hidden": "true" }, item);
    svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, stroke: s.color, "stroke-width": 4, "stroke-dasharray": s.dash || "none" }, swatch);
    item.append(s.name);
  }
}

// ---- confusion
function confusion() {
  const names = [...R.data.classes, "background"], count = names.length, host = byId("confusion");
  const totals = new Array(count).fill(0);
  for (const [r, , n] of R.confusion.counts) totals[r] += n;
  if (!R.confusion.counts.length) { el("p", { class: "soft" }, host, "There are neither objects nor detections at the thresholds."); return; }
  const cell = count <= 12 ? 44 : count <= 30 ? 26 : 13, values = count <= 30;
  const cut = (name) => (name.length > 18 ? `${name.slice(0, 17)}\u2026` : name);
  const left = 14 + 6.6 * Math.max(...names.map((n) => cut(n).length)), top = left;
  const width = left + cell * count + 4, height = top + cell * count + 4;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "Confusion matrix" }, host);
  const type = Math.min(11, cell - 1);
  names.forEach((name, i) => {
    const middle = top + cell * (i + 0.5);
    const row = svg("text", { x: left - 6, y: middle + 4, "text-anchor": "end", style: `font-size:${type}px` }, root, cut(name));
    svg("title", {}, row, name);
    const at = left + cell * (i + 0.5) + 4;
    const column = svg("text", { transform: `translate(${at} ${top - 6}) rotate(-90)`, style: `font-size:${type}px` }, root, cut(name));
    svg("title", {}, column, name);
  });
  svg("rect", { x: left, y: top, width: cell * count, height: cell * count, fill: "none", class: "cell" }, root);
  for (const [r, c, n] of R.confusion.counts) {
    const share = n / totals[r], right = r === c, shade = r === count - 1 ? "122,132,142" : right ? "27,158,119" : "209,96,15";
    const box = svg("rect", { x: left + cell * c, y: top + cell * r, width: cell, height: cell, class: "cell", fill: `rgba(${shade},${(0.12 + 0.88 * share).toFixed(3)})` }, root);
    svg("title", {}, box, `${names[r]} taken for ${names[c]}: ${n} of ${totals[r]}`);
    if (!values) continue;
    const text = r === count - 1 ? String(n) : share < 0.005 ? "<1" : String(Math.round(100 * share));
    svg("text", { x: left + cell * (c + 0.5), y: top + cell * (r + 0.5) + 4, "text-anchor": "middle", class: share > 0.6 ? "value light" : "value" }, root, text);
  }
  if (R.confusion.most.length) {
    const host = byId("confused"), box = el("div", { class: "scroll" }, host);
    el("table", { id: "confusions" }, box);
    table("confusions", ["object", "taken for", "times"], R.confusion.most.map((row) => row.map((v) => [String(v)])));
  }
}

// ---- errors, calibration, counts
function figures() {
  const container = byId("figures");
  const errors = NAMES.errors.map(([kind, meaning], i) => ({ kind, meaning, color: ERROR_COLORS[i] }));
  const rows = (of, factor) => errors.map(({ kind, color }) => ({ name: kind, color, parts: [factor * Math.max(of[kind] || 0, 0)] }));
  const bars = (title, note, rows) => {
    const most = Math.max(...rows.map((r) => r.parts[0]));
    plainBars(figure(container, title, note), rows, { title, most });
  };
  bars("Cost of errors", "AP50 points gained if that kind alone were fixed; not additive", rows(R.errors.dap, 100));
  bars("Number of errors", errors.map(({ kind, meaning }) => `${kind}: ${meaning}`).join("; "), rows(R.errors.counts, 1));
  const K = R.calibration;
  const reliability = { name: "share right", color: COLORS[0], x: K.confidence, y: K.precision };
  const box = figure(container, "Calibration", `share of detections that is right against their score; on the diagonal scores mean what they say. D-ECE ${isNumber(K.ece) ? K.ece.toFixed(3) : "n/a"}`);
  lineChart(box, K.confidence.some(isNumber) ? [reliability] : [], { title: "Calibration", xLabel: "score", yLabel: "share right", x: [0, 1], y: [0, 1], diagonal: true, dots: true, empty: "There are no detections." });
  columns(figure(container, "Scores", "detections by score, all of them; a bar begins at its number"), K.edges.slice(0, -1).map(two), [{ name: "detections", color: COLORS[0], values: K.count }], { title: "Scores", xLabel: "score", yLabel: "detections" });
  const H = R.per_image;
  columns(figure(container, "Objects and detections in an image", "images by how many they have, detections at the thresholds"), H.bins,
    [{ name: "objects", color: COLORS[2], values: H.objects }, { name: "detections", color: COLORS[0], values: H.detections }], { title: "Counts", xLabel: "in an image", yLabel: "images" });
}

// ---- slices
function slices() {
  const host = byId("slices"), keys = Object.keys(R.slices);
  if (!keys.length) { byId("slices-section").remove(); return; }
  keys.forEach((key, i) => {
    el("h3", {}, host, key);
    const rows = R.slices[key];
    const grid = el("div", { class: "figures" }, host);
    const known = rows.filter((r) => isNumber(r.ap));
    if (known.length) {
      const box = el("figure", { class: "figure" }, grid);
      forest(box, rows.map((r) => ({ name: r.name, color: COLORS[0], value: percent(r.ap), low: percent(r.low), high: percent(r.high), verdict: "no objects" })), { title: `AP by ${key}`, xLabel: "AP, points, with a 95 % interval over images" });
    }
    el("table", { id: `slice-${i}` }, el("div", { class: "scroll" }, grid));
    table(`slice-${i}`, [key, "images", "objects", "AP", "interval", "AP50", "AP75"], rows.map((r) => [[r.name], [String(r.images)], [String(r.objects)], [points(r.ap)], [spread(r)], [points(r.ap50)], [points(r.ap75)]]));
  });
}

const percent = (v) => (isNumber(v) ? 100 * v : null);

// ---- pictures
function pictures(id, list) {
  if (!list.length) { byId(`${id}-section`).remove(); return; }
  const host = el("div", { class: "pairs" }, byId(id));
  for (const sample of list) {
    const pair = el("article", { class: "pair" }, host);
    el("p", {}, pair, sample.caption);
    const row = el("div", { class: "samples" }, pair);
    picture(row, sample, sample.truth, `objects in ${sample.name}`, false, true);
    picture(row, sample, sample.detections, "detections", true, true);
  }
}

tables();
const picker = byId("class");
R.rows.forEach((r, i) => el("option", { value: i }, picker, r.name));
picker.addEventListener("change", () => drawCurves(Number(picker.value)));
drawCurves(0);
confusion();
figures();
slices();
pictures("worst", R.worst);
pictures("confident", R.confident);
