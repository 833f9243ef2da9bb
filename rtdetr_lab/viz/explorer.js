// The explorer: one query of a detector, over its picture. No build step, no other files.
//
// anywidget calls `render({ model, el })`. A static page calls it with a replacement model that has
// `get`, `set`, `save_changes` and `on`. All text is set by `textContent`, never as HTML.

const LEVEL_COLORS = ["#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#F0E442"];
const GREY = "#808080"; // in the legend: no class has it
const MARGIN = 0.06; // share of the picture: points may be outside it
const OBJECT = 0.5; // the score from which a query counts as a detection
const FAINT = 0.005; // the smallest attention between queries that is drawn
const LAYER_TIME = 900; // milliseconds of a layer, when the layers are played
const KEYS = { ArrowRight: ["query", 1], ArrowLeft: ["query", -1], ArrowUp: ["layer", 1],
  ArrowDown: ["layer", -1], h: ["head", 1], l: ["level", 1] }; // head and level start again after the last

const STYLE = `
.xp { display: grid; grid-template-columns: minmax(0, 1fr); gap: 12px 20px; max-width: 1240px;
  color: var(--jp-ui-font-color1, CanvasText); font-size: 14px; }
@media (min-width: 760px) { .xp { grid-template-columns: minmax(0, 1fr) minmax(300px, 1fr); } }
.xp canvas[role=application] { width: 100%; display: block; border-radius: 6px;
  cursor: pointer; }
.xp canvas:focus-visible, .xp button:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
.xp-line { display: grid; grid-template-columns: 4.5em minmax(0, 1fr) 6.5em; gap: 8px;
  align-items: center; min-height: 28px; }
.xp-line input[type=range] { width: 100%; accent-color: #0072B2; }
.xp-line output { font-variant-numeric: tabular-nums; }
.xp-readout { margin: 0 0 6px; min-height: 6.2em; }
.xp-title { font-weight: 600; font-size: 17px; }
.xp table { border-collapse: collapse; width: 100%; margin: 6px 0; font-variant-numeric: tabular-nums; }
.xp th, .xp td { text-align: left; padding: 3px 6px 3px 0; font-weight: normal; }
.xp thead th { font-weight: 600; border-bottom: 1px solid #8888; }
.xp tr[aria-current=true] { background: #0072B233; }
.xp td:has(.xp-bar) { white-space: nowrap; }
.xp-bar { display: inline-block; height: 9px; background: #0072B2; vertical-align: baseline;
  margin-right: 6px; border-radius: 2px; }
.xp-switches { display: flex; flex-wrap: wrap; gap: 0 16px; margin: 4px 0; align-items: center; }
.xp-switches label { display: inline-flex; align-items: center; gap: 6px; min-height: 28px; }
.xp-switches input { width: 18px; height: 18px; accent-color: #0072B2; }
.xp-switches button { font: inherit; min-height: 36px; padding: 0 14px; border-radius: 8px;
  border: 1px solid #8888; background: #8882; color: inherit; cursor: pointer; }
.xp-key { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 13px; margin-top: 6px; }
.xp-key span { display: inline-flex; align-items: center; gap: 5px; }
.xp-hint { font-size: 13px; opacity: 0.8; margin: 6px 0 0; }
@media (pointer: coarse), (max-width: 760px) {
  .xp-line, .xp-switches label, .xp-switches button, .xp-line input { min-height: 44px; }
  .xp tbody tr { height: 44px; }
}
`;

// --- the numbers --------------------------------------------------------------------------------

const product = (numbers) => numbers.reduce((a, b) => a * b, 1);

/** A tensor that reads numbers, or whole rows, at an index. */
function tensor(values, shape) {
  const strides = shape.map((_, i) => product(shape.slice(i + 1)));
  const start = (where) => where.reduce((sum, index, i) => sum + index * strides[i], 0);
  return {
    shape,
    values,
    at: (...where) => values[start(where)],
    row: (...where) => values.slice(start(where), start(where) + strides[where.length - 1]),
  };
}

function unpack(meta, view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice().buffer;
  const arrays = {};
  for (const [name, { at, kind, shape }] of Object.entries(meta.layout)) {
    const values = new { f4: Float32Array, i4: Int32Array }[kind](bytes, at, product(shape));
    arrays[name] = tensor(values, shape);
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
  const sum = (head) => [...arrays.weights.row(state.layer, state.query, head)]
    .reduce((a, b) => a + b, 0);
  const whole = [...Array(heads).keys()].every((head) => Math.abs(sum(head) - 1) < 0.001);
  return { query, whole, marks, links, life, cell: { level, row, column: column_ },
    token: arrays.tokens.at(query), rank: arrays.ranks?.at(query) ?? query + 1, reference: life[state.layer].box,
    box: life[state.layer + 1].box };
}

/** Confident boxes around a position, as places among the explored queries, the smallest first. */
function around(arrays, x, y) {
  const last = arrays.boxes.shape[0] - 1;
  const found = [];
  [...arrays.kept.values].forEach((query, i) => {
    const [cx, cy, w, h] = arrays.boxes.row(last, query);
    const inside = Math.abs(x - cx) <= w / 2 && Math.abs(y - cy) <= h / 2;
    if (inside && arrays.scores.at(last, query) >= OBJECT) found.push([w * h, i]);
  });
  return found.sort(([a], [b]) => a - b).map(([, i]) => i);
}

/** Find the explored query at a position: the smallest confident box around it, else the nearest. */
function queryAt(arrays, x, y) {
  const [first] = around(arrays, x, y);
  if (first !== undefined) return first;
  const last = arrays.boxes.shape[0] - 1;
  const far = [...arrays.kept.values].map((query) => {
    const [cx, cy] = arrays.boxes.row(last, query);
    return Math.hypot(x - cx, y - cy);
  });
  return far.indexOf(Math.min(...far));
}

/** An object that explains itself: confident, large, and not as large as the picture. */
function opening(arrays) {
  const last = arrays.boxes.shape[0] - 1;
  const worth = [...arrays.kept.values].map((query) => {
    const [, , w, h] = arrays.boxes.row(last, query);
    const score = arrays.scores.at(last, query);
    return score < OBJECT || w * h > 0.4 ? 0 : score * Math.sqrt(w * h);
  });
  return worth.indexOf(Math.max(...worth));
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
  for (const [ink, width] of [["#FFFFFF", 2.6], ["#101010", 1]]) { // legible on any picture
    pen.strokeStyle = ink;
    pen.lineWidth = width;
    pen.stroke();
  }
  pen.fillStyle = color;
  pen.fill();
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

/** Make the canvas as large as it is shown; return a pen, and the place of a fraction in pixels. */
function prepared(canvas, [height0, width0]) {
  const width = canvas.clientWidth || 640;
  const inner = width / (1 + 2 * MARGIN);
  const tall = inner * (height0 / width0);
  const edge = MARGIN * inner;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round((tall + 2 * edge) * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return { pen, inner, tall, edge, place: (x, y) => [edge + x * inner, edge + y * tall],
    toPlace: (px, py) => [(px - edge) / inner, (py - edge) / tall] };
}

function draw(canvas, paint, meta, arrays, state, shown, switches, hovered) {
  const { pen, inner, tall, edge, place, toPlace } = prepared(canvas, meta.size);
  paint(pen, edge, edge, inner, tall);
  canvas.drawn = { ...shown, state: { ...state }, toPlace };
  if (state.stale) return;
  const last = arrays.boxes.shape[0] - 1;
  const colorOf = (query) => meta.colors[arrays.labels.at(last, query)];
  if (switches.others) {
    for (const query of arrays.kept.values) {
      if (arrays.scores.at(last, query) < OBJECT || query === shown.query) continue;
      frame(pen, place, arrays.boxes.row(last, query), colorOf(query), 1.5);
    }
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
  frame(pen, place, shown.box, meta.colors[label], 3);
  if (switches.points) {
    const box = shown.box[2] * inner * shown.box[3] * tall;
    const unit = Math.min(1600, Math.max(500, 0.07 * box)); // a mark grows with its box
    for (const { x, y, weight, level } of shown.marks) {
      mark(pen, level, ...place(x, y), weight * unit, LEVEL_COLORS[level]);
    }
  }
  const name = ([cx, cy, w, h], text, color) => {
    const [left, top] = place(cx - w / 2, cy - h / 2);
    tag(pen, text, Math.max(2, left), Math.max(20, top - 3), color);
  };
  name(shown.box, `${meta.names[label]} ${score.toFixed(2)}`, meta.colors[label]);
  if (hovered !== null && arrays.kept.at(hovered) !== shown.query) {
    const query = arrays.kept.at(hovered);
    const text = `${meta.names[arrays.labels.at(last, query)]} ${arrays.scores.at(last, query).toFixed(2)}`;
    name(arrays.boxes.row(last, query), text, colorOf(query));
  }
}

function drawLinks(pen, place, shown) {
  const [x, y] = place(shown.reference[0], shown.reference[1]);
  for (const { box, weight, query } of shown.links) {
    if (query === shown.query || weight < FAINT) continue;
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
  return (value, [from, to]) => {
    Object.assign(input, { min: from, max: to });
    input.value = value;
    output.textContent = say(value);
    input.setAttribute("aria-valuetext", output.textContent);
  };
}

function key(parent, meta) {
  const line = node("div", parent, { class: "xp-key", "aria-label": "legend" });
  const entry = (words, paint) => {
    const span = node("span", line);
    const sample = node("canvas", span, { width: 40, height: 28, "aria-hidden": "true",
      style: "width:20px;height:14px" });
    const pen = sample.getContext("2d");
    pen.scale(2, 2);
    paint(pen);
    span.append(words);
  };
  const box = (color, width, dash) => (pen) => frame(pen, (x, y) => [20 * x, 14 * y],
    [0.5, 0.5, 0.7, 0.65], color, width, dash);
  meta.levels.forEach((name, level) => entry(`${level ? "" : "sampling point on "}${name}`, (pen) => mark(pen, level, 10, 7, 70, LEVEL_COLORS[level])));
  node("span", line, {}, "area of a point: its weight");
  entry("box after the layer, in the colour of its class", box(GREY, 3));
  entry("box it starts from", box("#FFFFFF", 1.5, [3, 2]));
  entry("other detection", box(GREY, 1.5));
  entry("query it attends to; width: weight", (pen) => {
    pen.fillStyle = "#F0E442";
    pen.fillRect(0, 5.5, 20, 3);
    mark(pen, 3, 10, 7, 60, "#F0E442");
  });
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
    node("span", cell, { class: "xp-bar", style: `width:${(3.6 * score).toFixed(2)}em` });
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

function sentence(meta, shown, state, heads) {
  const { cell, life } = shown;
  const end = life[life.length - 1];
  const where = `${meta.levels[cell.level]}, row ${cell.row}, column ${cell.column}`;
  const sums = shown.whole ? "sum to 1" : "no longer sum to 1";
  const part = state.level < 0 ? sums : `of all levels ${sums}`;
  return [
    `${meta.names[end.label]} ${end.score.toFixed(3)}`,
    `Query ${shown.query}: after the last layer, its score is number ${state.query + 1} of all queries. `
    + `It started from token ${shown.token}, a cell of a map (${where}); that score was number `
    + `${shown.rank} of ${meta.num_tokens}. ${shown.marks.length} points of `
    + `${state.head < 0 ? `${heads} heads (groups of points)` : `head ${state.head}`}; `
    + `in each head the weights ${part}.`,
  ];
}

/** Say why nothing was selected where the picture was clicked. */
function missed(meta, shown) {
  const { label, score } = shown.life[shown.life.length - 1];
  return `No detection here. The nearest query is ${shown.query}: its best class is `
    + `${meta.names[label]}, with a score of ${score.toFixed(2)} (a detection has ${OBJECT} or more). `
    + `The score of its token was number ${shown.rank} of ${meta.num_tokens}.`;
}

// --- putting it together ------------------------------------------------------------------------

function render({ model, el }) {
  let [meta, arrays, ranges] = [];
  let [layers, count, heads] = [];
  const clamp = (value, [low, high]) => Math.min(high, Math.max(low, value));
  const state = {};
  const switches = { points: true, links: false, trail: false, others: true };
  let [hovered, miss, playing] = [null, false, null]; // playing: { layer, share } of a moving box

  const load = () => {
    meta = model.get("meta");
    arrays = model.get("arrays") ?? unpack(meta, model.get("data"));
    [layers, count, heads] = arrays.weights.shape;
    ranges = { query: [0, count - 1], layer: [0, layers - 1], head: [-1, heads - 1],
      level: [-1, meta.points.length - 1] };
    if (model.get("query") < 0) model.set("query", opening(arrays));
    [hovered, miss] = [null, false];
  };
  load();
  const read = () => {
    for (const [name, range] of Object.entries(ranges)) state[name] = clamp(model.get(name), range);
    if (model.get("layer") < 0) state.layer = layers - 1;
    if (playing) state.layer = playing.layer;
    state.stale = Boolean(model.get("stale"));
  };

  const root = node("div", el, { class: "xp" });
  node("style", root, {}, STYLE);
  const left = node("div", root);
  const right = node("div", root);
  const canvas = node("canvas", left, { tabindex: 0, role: "application",
    "aria-label": "Picture. Left and right select a query, up and down a layer, h a head, "
      + "l a level, p plays the layers; a click selects the object under it." });
  const readout = node("div", right, { class: "xp-readout", "aria-live": "polite" });
  const image = new Image();
  image.alt = meta.title;
  const paint = model.get("paint")
    ?? ((pen, ...where) => { if (image.naturalWidth) pen.drawImage(image, ...where); });

  const update = () => {
    read();
    const shown = view(meta, arrays, state);
    const [title, text] = sentence(meta, shown, state, heads);
    if (playing) {
      const { reference, box } = shown;
      shown.box = reference.map((from, i) => from + (box[i] - from) * playing.share);
    }
    readout.replaceChildren();
    node("div", readout, { class: "xp-title" }, state.stale ? "…" : miss ? "nothing" : title);
    const waiting = "The scene has changed. The model loads, then it answers.";
    node("div", readout, {}, state.stale ? waiting : miss ? missed(meta, shown) : text);
    for (const [name, set] of Object.entries(sliders)) set(state[name], ranges[name]);
    lifeTable(table, meta, shown, state.layer, (layer) => choose({ layer }));
    table.style.visibility = state.stale ? "hidden" : "visible";
    el.dataset.query = state.query;
    draw(canvas, paint, meta, arrays, state, shown, switches, hovered);
  };
  const choose = (changes) => {
    [miss, playing] = [false, null];
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
    update();
  };
  const play = () => {
    const moving = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const own = playing = { layer: 0, share: moving ? 0 : 1 };
    const start = performance.now();
    const step = (now) => {
      if (playing !== own || !canvas.isConnected) return;
      const time = Math.max(0, now - start) / LAYER_TIME;
      if (time >= layers) return choose({ layer: layers - 1 });
      own.layer = Math.floor(time);
      if (moving) own.share = Math.min(1, 1.6 * (time - own.layer));
      update();
      requestAnimationFrame(step);
    };
    step(start);
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
  node("button", boxes, { type: "button" }, "▶ play the layers").addEventListener("click", play);
  const names = { points: "sampling points", links: "queries it attends to",
    trail: "trail of its box", others: "other detections" };
  for (const [name, words] of Object.entries(names)) {
    const line = node("label", boxes);
    const box = node("input", line, { type: "checkbox", "aria-label": words });
    box.checked = switches[name];
    line.append(words);
    box.addEventListener("change", () => { switches[name] = box.checked; update(); });
  }
  const table = node("table", right, { "aria-label": "life of the query" });
  key(right, meta);
  node("p", right, { class: "xp-hint" },
    "Click an object, or focus the picture: ← → query, ↑ ↓ layer, h head, l level, p play.");

  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return canvas.drawn.toPlace(event.clientX - box.left, event.clientY - box.top);
  };
  canvas.addEventListener("click", (event) => {
    if (canvas.ignoreClick) return; // it was the end of a drag
    const place = placeOf(event);
    choose({ query: queryAt(arrays, ...place) });
    miss = around(arrays, ...place).length === 0;
    if (miss) update();
  });
  canvas.addEventListener("pointermove", (event) => {
    const under = around(arrays, ...placeOf(event))[0] ?? null;
    if (under === hovered) return;
    hovered = under;
    update();
  });
  canvas.addEventListener("keydown", (event) => {
    const [name, step] = KEYS[event.key] ?? [];
    if (event.ctrlKey || event.metaKey || event.altKey || !(name || event.key === "p")) return;
    event.preventDefault();
    event.stopPropagation();
    if (!name) return play();
    const [low, high] = ranges[name];
    const next = state[name] + step;
    choose({ [name]: low < 0 && next > high ? low : clamp(next, ranges[name]) });
  });
  for (const name of Object.keys(ranges)) model.on(`change:${name}`, update);
  model.on("change:data", () => { load(); update(); });
  image.addEventListener("load", update);
  image.src = meta.image;
  const resized = new ResizeObserver(update);
  resized.observe(left);
  update();
  return () => resized.disconnect();
}

export default { render };
