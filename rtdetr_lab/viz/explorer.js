// The explorer: one query of a detector, over its picture. No build step, no other files.
//
// anywidget calls `render({ model, el })`. A static page calls it with a replacement model that has
// `get`, `set`, `save_changes` and `on`. All text is set by `textContent`, never as HTML.

const LEVEL_COLORS = ["#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#F0E442"];
const MARGIN = 0.06; // share of the picture: points may be outside it
const OBJECT = 0.5; // the score from which a query counts as a detection
const KEYS = { ArrowRight: ["query", 1], ArrowLeft: ["query", -1], ArrowUp: ["layer", 1],
  ArrowDown: ["layer", -1], h: ["head", 1], l: ["level", 1] }; // head and level start again after the last

const STYLE = `
.xp { display: grid; grid-template-columns: minmax(0, 1fr); gap: 12px; max-width: 1080px;
  color: var(--jp-ui-font-color1, CanvasText); font-size: 14px; }
@media (min-width: 760px) { .xp { grid-template-columns: minmax(0, 3fr) minmax(250px, 2fr); } }
.xp canvas { width: 100%; display: block; border-radius: 6px; background: #2b2b2b; cursor: pointer; }
.xp canvas:focus-visible, .xp button:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
.xp-line { display: grid; grid-template-columns: 4.5em minmax(0, 1fr) 6.5em; gap: 8px;
  align-items: center; margin: 3px 0; }
.xp-line input[type=range] { width: 100%; accent-color: #0072B2; }
.xp-line output { font-variant-numeric: tabular-nums; }
.xp-readout { margin: 0 0 8px; min-height: 4.2em; }
.xp-title { font-weight: 600; font-size: 16px; }
.xp table { border-collapse: collapse; width: 100%; margin: 8px 0; font-variant-numeric: tabular-nums; }
.xp th, .xp td { text-align: left; padding: 2px 6px 2px 0; font-weight: normal; }
.xp thead th { font-weight: 600; border-bottom: 1px solid #8888; }
.xp tr[aria-current=true] { background: #0072B233; }
.xp-bar { display: inline-block; height: 9px; background: #0072B2; vertical-align: baseline;
  margin-right: 6px; border-radius: 2px; }
.xp-switches { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 6px 0; }
.xp-key { display: flex; flex-wrap: wrap; gap: 4px 14px; font-size: 13px; margin-top: 6px; }
.xp-key span { display: inline-flex; align-items: center; gap: 5px; }
.xp-hint { font-size: 13px; opacity: 0.75; margin: 6px 0 0; }
`;

// --- the numbers --------------------------------------------------------------------------------

const product = (numbers) => numbers.reduce((a, b) => a * b, 1);

function unpack(meta, view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice().buffer;
  const arrays = {};
  for (const [name, { at, kind, shape }] of Object.entries(meta.layout)) {
    const values = new { f4: Float32Array, i4: Int32Array }[kind](bytes, at, product(shape));
    const strides = shape.map((_, i) => product(shape.slice(i + 1)));
    const start = (where) => where.reduce((sum, index, i) => sum + index * strides[i], 0);
    arrays[name] = {
      shape,
      values,
      at: (...where) => values[start(where)],
      row: (...where) => values.subarray(start(where), start(where) + strides[where.length - 1]),
    };
  }
  return arrays;
}

/** Data of one view, in fractions of the picture; `draw` converts them to pixels. */
function view(meta, arrays, state) {
  const query = arrays.kept.at(state.query);
  const heads = arrays.weights.shape[2];
  const levels = meta.points.flatMap((count, level) => Array(count).fill(level));
  const wanted = state.head < 0 ? [...Array(heads).keys()] : [state.head];
  const marks = wanted.flatMap((head) => levels.map((level, point) => {
    const where = [state.layer, state.query, head, point];
    const [x, y] = arrays.locations.row(...where);
    return { x, y, weight: arrays.weights.at(...where), level };
  })).filter(({ level }) => state.level < 0 || level === state.level);
  const column = state.head < 0 ? heads : state.head; // the last column is the mean of all heads
  const links = [...arrays.listens.row(state.layer, state.query, column)].map((other, i) => ({
    query: other,
    weight: arrays.hears.at(state.layer, state.query, column, i),
    box: [...arrays.boxes.row(state.layer, other)],
  }));
  const life = Array.from({ length: arrays.boxes.shape[0] }, (_, step) => ({
    box: [...arrays.boxes.row(step, query)],
    score: arrays.scores.at(step, query),
    label: arrays.labels.at(step, query),
  }));
  const [level, row, column_] = arrays.cells.row(query);
  return { query, marks, links, life, cell: { level, row, column: column_ },
    token: arrays.tokens.at(query), reference: life[state.layer].box,
    box: life[state.layer + 1].box };
}

/** Find the explored query at a position: the smallest confident box around it, else the nearest. */
function queryAt(arrays, x, y) {
  const last = arrays.boxes.shape[0] - 1;
  let best = 0;
  let bestCost = Infinity;
  arrays.kept.values.forEach((query, i) => {
    const [cx, cy, w, h] = arrays.boxes.row(last, query);
    const inside = Math.abs(x - cx) <= w / 2 && Math.abs(y - cy) <= h / 2;
    const confident = arrays.scores.at(last, query) >= OBJECT;
    const cost = inside && confident ? w * h : 10 + Math.hypot(x - cx, y - cy);
    if (cost < bestCost) [best, bestCost] = [i, cost];
  });
  return best;
}

// --- the picture --------------------------------------------------------------------------------

function mark(pen, shape, x, y, area, color) {
  const r = Math.sqrt(area / Math.PI);
  pen.beginPath();
  if (shape === 0) pen.arc(x, y, r, 0, 7);
  else {
    const [corners, first] = [null, [4, -135], [3, -90], [4, -90], [3, 90]][shape];
    const reach = shape === 1 ? 1.26 : 1.3; // so that a square has the area of a circle
    for (let i = 0; i < corners; i++) {
      const angle = ((first + (360 * i) / corners) * Math.PI) / 180;
      pen.lineTo(x + reach * r * Math.cos(angle), y + reach * r * Math.sin(angle));
    }
    pen.closePath();
  }
  pen.fillStyle = color;
  pen.fill();
  pen.strokeStyle = "#101010";
  pen.lineWidth = 0.8;
  pen.stroke();
}

function frame(pen, place, [cx, cy, w, h], color, width, dash = []) {
  const [x, y] = place(cx - w / 2, cy - h / 2);
  const [right, bottom] = place(cx + w / 2, cy + h / 2);
  pen.setLineDash(dash);
  for (const [ink, extra] of [["#101010", 2], [color, 0]]) {
    pen.strokeStyle = ink;
    pen.lineWidth = width + extra;
    pen.strokeRect(x, y, right - x, bottom - y);
  }
  pen.setLineDash([]);
}

function tag(pen, text, x, y, color) {
  pen.font = "600 13px system-ui, sans-serif";
  const wide = pen.measureText(text).width + 8;
  pen.fillStyle = "#101010";
  pen.fillRect(x - 1, y - 19, wide + 2, 20);
  pen.fillStyle = color;
  pen.fillText(text, x + 4, y - 5);
}

function draw(canvas, image, meta, arrays, state, shown, switches) {
  const width = canvas.clientWidth || 640;
  const [height0, width0] = meta.size;
  const inner = width / (1 + 2 * MARGIN);
  const height = inner * (height0 / width0) + 2 * MARGIN * inner;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const edge = MARGIN * inner;
  const place = (x, y) => [edge + x * inner, edge + y * inner * (height0 / width0)];
  pen.fillStyle = "#2b2b2b";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(image, edge, edge, inner, height - 2 * edge);
  if (switches.points) {
    pen.fillStyle = "#0007";
    pen.fillRect(edge, edge, inner, height - 2 * edge);
  }
  const last = arrays.boxes.shape[0] - 1;
  if (switches.others) {
    pen.globalAlpha = 0.7;
    for (const query of arrays.kept.values) {
      if (arrays.scores.at(last, query) < OBJECT) continue;
      frame(pen, place, arrays.boxes.row(last, query), meta.colors[arrays.labels.at(last, query)], 1);
    }
    pen.globalAlpha = 1;
  }
  if (switches.links) drawLinks(pen, place, shown);
  if (switches.trail) {
    shown.life.forEach(({ box }, step) => {
      pen.globalAlpha = 0.35 + (0.5 * step) / shown.life.length;
      frame(pen, place, box, "#FFFFFF", 1);
    });
    pen.globalAlpha = 1;
  }
  frame(pen, place, shown.reference, "#FFFFFF", 1.5, [6, 4]);
  const { label, score } = shown.life[state.layer + 1];
  frame(pen, place, shown.box, meta.colors[label], 2.5);
  if (switches.points) {
    for (const { x, y, weight, level } of shown.marks) {
      const area = weight * inner * 1.6;
      mark(pen, level, ...place(x, y), area, LEVEL_COLORS[level]);
    }
  }
  const [left, top] = place(shown.box[0] - shown.box[2] / 2, shown.box[1] - shown.box[3] / 2);
  tag(pen, `${meta.names[label]} ${score.toFixed(2)}`, Math.max(2, left), Math.max(20, top - 3),
    meta.colors[label]);
  canvas.drawn = { ...shown, state: { ...state }, toPlace: (px, py) => [
    (px - edge) / inner, (py - edge) / (inner * (height0 / width0))] };
}

function drawLinks(pen, place, shown) {
  const [x, y] = place(shown.reference[0], shown.reference[1]);
  for (const { box, weight, query } of shown.links) {
    if (query === shown.query) continue;
    const [ox, oy] = place(box[0], box[1]);
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(ox, oy);
    pen.strokeStyle = "#F0E442";
    pen.globalAlpha = 0.85;
    pen.lineWidth = 1 + 14 * weight;
    pen.stroke();
    pen.globalAlpha = 1;
    mark(pen, 3, ox, oy, 60, "#F0E442");
  }
}

// --- words and controls -------------------------------------------------------------------------

function node(kind, parent, attributes = {}, text = "") {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

function slider(parent, name, [low, high], say, choose) {
  const line = node("label", parent, { class: "xp-line" });
  node("span", line, {}, name);
  const input = node("input", line, { type: "range", min: low, max: high, step: 1,
    "aria-label": name });
  const output = node("output", line);
  input.addEventListener("input", () => choose({ [name]: Number(input.value) }));
  return (value) => {
    input.value = value;
    output.textContent = say(value);
    input.setAttribute("aria-valuetext", output.textContent);
  };
}

function key(parent, meta) {
  const line = node("div", parent, { class: "xp-key", "aria-label": "legend" });
  meta.levels.forEach((name, level) => {
    const entry = node("span", line);
    const sample = node("canvas", entry, { width: 14, height: 14, "aria-hidden": "true",
      style: "width:14px;height:14px;background:none" });
    mark(sample.getContext("2d"), level, 7, 7.5, 70, LEVEL_COLORS[level]);
    entry.append(`${name}, ${meta.points[level]} points per head`);
  });
  node("span", line, {}, "area of a mark: its weight");
  node("span", line, {}, "▭ solid: box after the layer");
  node("span", line, {}, "▭ dashed: box it starts from");
}

function lifeTable(parent, meta, shown, current, onstep) {
  parent.replaceChildren();
  const head = node("tr", node("thead", parent));
  for (const name of ["after", "class", "score", "moved by"]) node("th", head, { scope: "col" }, name);
  const body = node("tbody", parent);
  shown.life.forEach(({ box, score, label }, step) => {
    const row = node("tr", body, { "aria-current": String(step === current + 1) });
    node("th", row, { scope: "row" }, step ? `layer ${step - 1}` : "selection");
    node("td", row, {}, meta.names[label]);
    const cell = node("td", row);
    node("span", cell, { class: "xp-bar", style: `width:${Math.round(70 * score)}px` });
    cell.append(score.toFixed(3));
    const before = shown.life[step - 1];
    const [height, width] = meta.size;
    const moved = before
      ? Math.hypot((box[0] - before.box[0]) * width, (box[1] - before.box[1]) * height)
      : null;
    node("td", row, {}, moved === null ? "–" : `${moved.toFixed(1)} px`);
    if (step) row.addEventListener("click", () => onstep(step - 1));
  });
}

function sentence(meta, shown, state, count) {
  const { cell, life } = shown;
  const end = life[life.length - 1];
  const where = `${meta.levels[cell.level]}, row ${cell.row}, column ${cell.column}`;
  const total = shown.marks.reduce((sum, { weight }) => sum + weight, 0);
  return [
    `${meta.names[end.label]} ${end.score.toFixed(3)}`,
    `Query ${shown.query}, place ${state.query + 1} of ${count} by score. It started as token `
    + `${shown.token} (${where}), rank ${shown.query + 1} of ${meta.num_tokens} tokens. `
    + `${shown.marks.length} points shown, their weights sum to ${total.toFixed(2)}.`,
  ];
}

// --- putting it together ------------------------------------------------------------------------

function render({ model, el }) {
  const meta = model.get("meta");
  const arrays = unpack(meta, model.get("data"));
  const [layers, count, heads] = arrays.weights.shape;
  const ranges = { query: [0, count - 1], layer: [0, layers - 1], head: [-1, heads - 1],
    level: [-1, meta.points.length - 1] };
  const clamp = (value, [low, high]) => Math.min(high, Math.max(low, value));
  const state = {};
  const switches = { points: true, links: false, trail: false, others: true };

  const read = () => {
    for (const [name, range] of Object.entries(ranges)) state[name] = clamp(model.get(name), range);
    if (model.get("layer") < 0) state.layer = layers - 1;
  };

  const root = node("div", el, { class: "xp" });
  node("style", root, {}, STYLE);
  const left = node("div", root);
  const right = node("div", root);
  const canvas = node("canvas", left, { tabindex: 0, role: "application",
    "aria-label": "Picture. Left and right select a query, up and down a layer, h a head, "
      + "l a level; a click selects the object under it." });
  key(left, meta);
  node("p", left, { class: "xp-hint" },
    "Click an object, or focus the picture: ← → query, ↑ ↓ layer, h head, l level.");
  const readout = node("div", right, { class: "xp-readout", "aria-live": "polite" });
  const image = new Image();
  image.alt = meta.title;

  const update = () => {
    read();
    const shown = view(meta, arrays, state);
    const [title, text] = sentence(meta, shown, state, count);
    readout.replaceChildren();
    node("div", readout, { class: "xp-title" }, title);
    node("div", readout, {}, text);
    for (const [name, set] of Object.entries(sliders)) set(state[name]);
    lifeTable(table, meta, shown, state.layer, (layer) => choose({ layer }));
    el.dataset.query = state.query;
    if (image.complete && image.naturalWidth) {
      draw(canvas, image, meta, arrays, state, shown, switches);
    }
  };
  const choose = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
    update();
  };

  const say = {
    query: (v) => `query ${arrays.kept.at(v)}`,
    layer: (v) => `${v} (0 to ${layers - 1})`,
    head: (v) => (v < 0 ? "all heads" : `head ${v}`),
    level: (v) => (v < 0 ? "all levels" : meta.levels[v]),
  };
  const sliders = {};
  for (const [name, range] of Object.entries(ranges)) {
    sliders[name] = slider(right, name, range, say[name], choose);
  }
  const boxes = node("div", right, { class: "xp-switches" });
  const names = { points: "sampling points", links: "queries it attends to",
    trail: "trail of its box", others: "other detections" };
  for (const [name, words] of Object.entries(names)) {
    const line = node("label", boxes);
    const box = node("input", line, { type: "checkbox", "aria-label": words });
    box.checked = switches[name];
    line.append(` ${words}`);
    box.addEventListener("change", () => { switches[name] = box.checked; update(); });
  }
  const table = node("table", right, { "aria-label": "life of the query" });

  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const place = canvas.drawn.toPlace(event.clientX - box.left, event.clientY - box.top);
    choose({ query: queryAt(arrays, ...place) });
  });
  canvas.addEventListener("keydown", (event) => {
    const [name, step] = KEYS[event.key] ?? [];
    if (event.ctrlKey || event.metaKey || event.altKey || !name) return;
    event.preventDefault();
    event.stopPropagation();
    const [low, high] = ranges[name];
    const next = state[name] + step;
    choose({ [name]: low < 0 && next > high ? low : clamp(next, ranges[name]) });
  });
  for (const name of Object.keys(ranges)) model.on(`change:${name}`, update);
  image.addEventListener("load", update);
  image.src = meta.image;
  const resized = new ResizeObserver(update);
  resized.observe(left);
  update();
  return () => resized.disconnect();
}

export default { render };
