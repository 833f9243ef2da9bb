// The playground: a scene that you draw, and a model that answers while you move things.
//
// It follows explorer.js in one module and uses its functions. `live_worker.js` runs the model, so
// that the picture follows the pointer while the model computes. Nothing leaves the browser.

const KINDS = ["star", "rectangle", "ring", "triangle", "cross", "square", "circle", "ellipse", "diamond",
  "pentagon"];
const PAINTS = ["#E8B33A", "#3B6FD4", "#C8374A", "#2F9E63", "#8E4BC6", "#E87A2C", "#2AA5B8"];
const GROUNDS = [["#B9CBB0", "#8FA694"], ["#CDBBA5", "#A8937C"], ["#A9B8C9", "#8393AB"]];
const ICON = "#2E8FD6"; // legible on light and dark
const LARGEST = 40e6; // pixels of a picture that a browser unpacks without harm
const START = 0.16; // radius of a shape that is added without drawing

// --- the scene ----------------------------------------------------------------------------------

/** Random numbers in [0, 1) that a seed repeats. */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    const mixed = Math.imul(state ^ (state >>> 13), 0x297a2d39);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 4294967296;
  };
}

/** Scene `seed`: shapes that do not cover each other, on two grounds. Sizes are fractions. */
function sceneOf(seed) {
  const random = randomFrom(seed + 7);
  const shapes = [];
  for (let tries = 0; shapes.length < 6 && tries < 200; tries++) {
    const r = shapes.length < 2 ? 0.15 + 0.06 * random() : 0.06 + 0.08 * random();
    const [x, y] = [r + random() * (1 - 2 * r), r + random() * (1 - 2 * r)];
    if (shapes.some((s) => Math.hypot(s.x - x, s.y - y) < s.r + r + 0.02)) continue;
    const at = shapes.length;
    const kind = at < 2 ? KINDS[at] : KINDS[Math.floor(random() * KINDS.length)];
    const turn = ["square", "diamond"].includes(kind) ? 0.2 * random() : 6.28 * random();
    shapes.push({ kind, x, y, r, turn, paint: PAINTS[(seed + at) % PAINTS.length] });
  }
  return { shapes, ground: GROUNDS[seed % GROUNDS.length], hill: 0.45 + 0.3 * random() };
}

function outline(pen, kind) { // around the origin, with radius 1
  const corners = (n, inner = 1, first = -Math.PI / 2) => {
    for (let i = 0; i < n; i++) {
      const [angle, reach] = [first + (2 * Math.PI * i) / n, i % 2 ? inner : 1];
      pen.lineTo(reach * Math.cos(angle), reach * Math.sin(angle));
    }
  };
  pen.beginPath();
  if (kind === "circle" || kind === "ring") pen.arc(0, 0, 1, 0, 7);
  if (kind === "ring") { pen.moveTo(0.58, 0); pen.arc(0, 0, 0.58, 0, 7, true); }
  if (kind === "ellipse") pen.ellipse(0, 0, 1, 0.5, 0, 0, 7);
  if (kind === "triangle") corners(3);
  if (kind === "diamond") corners(4);
  if (kind === "pentagon") corners(5);
  if (kind === "star") corners(10, 0.382);
  if (kind === "square") pen.rect(-0.78, -0.78, 1.56, 1.56);
  if (kind === "rectangle") pen.rect(-0.9, -0.43, 1.8, 0.86);
  if (kind === "cross") {
    for (const [x, y] of [[-0.34, -1], [0.34, -1], [0.34, -0.34], [1, -0.34], [1, 0.34], [0.34, 0.34],
      [0.34, 1], [-0.34, 1], [-0.34, 0.34], [-1, 0.34], [-1, -0.34], [-0.34, -0.34]]) pen.lineTo(x, y);
  }
  pen.closePath();
}

function paintShape(pen, { kind, x, y, r, turn, paint }, width, height) {
  const reach = r * Math.min(width, height);
  pen.save();
  pen.translate(x * width, y * height);
  pen.rotate(turn);
  pen.scale(reach, reach);
  outline(pen, kind);
  pen.fillStyle = paint;
  pen.fill("evenodd");
  pen.lineWidth = 0.07;
  pen.strokeStyle = "#0006";
  pen.stroke();
  pen.restore();
}

function paintScene(pen, scene, width, height) {
  if (scene.picture) pen.drawImage(scene.picture, 0, 0, width, height);
  else {
    pen.fillStyle = scene.ground[0];
    pen.fillRect(0, 0, width, height);
    pen.fillStyle = scene.ground[1];
    pen.beginPath();
    pen.moveTo(0, scene.hill * height);
    pen.bezierCurveTo(width * 0.35, (scene.hill - 0.15) * height, width * 0.6,
      (scene.hill + 0.2) * height, width, scene.hill * height);
    pen.lineTo(width, height);
    pen.lineTo(0, height);
    pen.fill();
  }
  for (const shape of scene.shapes) paintShape(pen, shape, width, height);
}

// --- from the graph's outputs to the explorer's arrays ------------------------------------------

const sigmoid = (value) => 1 / (1 + Math.exp(-value));

/** Places of the `count` largest of some values, the largest first. */
function largest(values, count) {
  return [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, count);
}

/** Best class of a row of logits. */
function bestOf(logits) {
  const label = logits.reduce((best, value, i) => (value > logits[best] ? i : best), 0);
  return [label, sigmoid(logits[label])];
}

/** What `exploration.py` packs, from the outputs of the graph; of `queries` and `layers` only. */
function arraysOf(meta, outputs, queries, layers) {
  const at = (name) => tensor(outputs[name].data, outputs[name].dims.slice(1)); // without the batch
  const tokens = [...outputs["selection.index"].data].slice(0, queries).map(Number);
  const [logits, boxLogits] = [at("proposal_head.logits"), at("proposal_head.box_logits")];
  const count = logits.shape[0];
  const best = Float32Array.from({ length: count }, (_, token) => Math.max(...logits.row(token)));
  const steps = [...Array(layers).keys()];
  const found = steps.map((i) => [at(`decoder.boxes.${i}`), at(`decoder.logits.${i}`)]);
  const life = [
    tokens.map((token) => [[...boxLogits.row(token)].map(sigmoid), bestOf(logits.row(token))]),
    ...found.map(([box, logit]) => tokens.map((_, q) => [[...box.row(q)], bestOf(logit.row(q))])),
  ];
  const kept = largest(life[layers].map(([, [, score]]) => score), meta.live.most);
  const size = [layers + 1, queries];
  const rows = (read, shape) => tensor(Float32Array.from(life.flatMap((s) => s.flatMap(read))), shape);
  return {
    kept: tensor(kept, [kept.length]),
    tokens: tensor(tokens, [queries]),
    cells: tensor(tokens.flatMap((token) => cellOf(meta.shapes, token)), [queries, 3]),
    ranks: tensor(tokens.map((t) => 1 + best.filter((b) => b > best[t]).length), [queries]),
    boxes: rows(([box]) => box, [...size, 4]),
    scores: rows(([, [, score]]) => score, size),
    labels: rows(([, [label]]) => label, size),
    ...samplings(steps.map((i) => ({
      locations: at(`decoder.layers.${i}.cross_attn.locations`),
      weights: at(`decoder.layers.${i}.cross_attn.weights`),
      attention: at(`decoder.layers.${i}.self_attn.weights`),
    })), kept, queries),
  };
}

function samplings(layers, kept, queries) {
  const [heads, points] = layers[0].weights.shape.slice(1);
  const all = { locations: [], weights: [], listens: [], hears: [] };
  const few = Math.min(6, queries);
  for (const { locations, weights, attention } of layers) {
    for (const query of kept) {
      all.locations.push(...locations.row(query));
      all.weights.push(...weights.row(query));
      const rows = [...Array(heads).keys()].map((h) => [...attention.row(h, query)].slice(0, queries));
      rows.push(rows[0].map((_, q) => rows.reduce((sum, row) => sum + row[q], 0) / heads));
      for (const row of rows) {
        const top = largest(row, few);
        all.listens.push(...top);
        all.hears.push(...top.map((q) => row[q]));
      }
    }
  }
  const size = [layers.length, kept.length];
  return {
    locations: tensor(all.locations, [...size, heads, points, 2]),
    weights: tensor(all.weights, [...size, heads, points]),
    listens: tensor(all.listens, [...size, heads + 1, few]),
    hears: tensor(all.hears, [...size, heads + 1, few]),
  };
}

/** Number of detections, and of those on an object of the same class that has one already. */
function counted(arrays) {
  const last = arrays.boxes.shape[0] - 1;
  const found = [...arrays.kept.values].filter((query) => arrays.scores.at(last, query) >= OBJECT)
    .map((query) => ({ box: [...arrays.boxes.row(last, query)], label: arrays.labels.at(last, query) }));
  const again = found.filter((one, i) => found.slice(0, i)
    .some((other) => other.label === one.label && overlap(one.box, other.box) > 0.7));
  return [found.length, again.length];
}

/** Intersection over union of two boxes (cx, cy, w, h). */
function overlap(a, b) {
  const [w, h] = [0, 1].map((i) => Math.max(0, Math.min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2)
    - Math.max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2)));
  return (w * h) / (a[2] * a[3] + b[2] * b[3] - w * h);
}

function cellOf(shapes, token) {
  let level = 0;
  let rest = token;
  while (rest >= shapes[level][0] * shapes[level][1]) {
    rest -= shapes[level][0] * shapes[level][1];
    level += 1;
  }
  return [level, Math.floor(rest / shapes[level][1]), rest % shapes[level][1]];
}

// --- the page -----------------------------------------------------------------------------------

const LOOK = `
html { color-scheme: light dark; }
body { background: Canvas; color: CanvasText; }
.pg { display: grid; gap: 10px; max-width: 1240px; margin: auto; font-size: 14px; }
.pg-bar { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; }
.pg button, .pg .pg-file { min-width: 44px; min-height: 44px; padding: 0 12px; font: inherit;
  border: 1px solid #8888; border-radius: 8px; background: #8882; color: inherit;
  cursor: pointer; display: inline-flex; align-items: center; justify-content: center; }
.pg-bar button[aria-pressed] { padding: 0; }
.pg button[aria-pressed=true] { outline: 3px solid #0072B2; outline-offset: -2px; }
.pg-file:focus-within { outline: 3px solid #0072B2; outline-offset: 2px; }
.pg-file input { position: absolute; opacity: 0; width: 1px; }
.pg-top { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center; }
.pg-status { display: flex; flex: 1 1 300px; flex-wrap: wrap; gap: 4px 12px; align-items: center;
  min-height: 42px; }
.pg-status progress { width: 160px; accent-color: #0072B2; }
.pg canvas[role=application] { touch-action: pan-y; }
.pg-break { border: 1px solid #8886; border-radius: 8px; margin: 0; padding: 6px 12px 10px; min-width: 0;
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 270px), 1fr)); gap: 4px 24px; }
.pg-break legend { font-weight: 600; padding: 0 6px; }
.pg-break .pg-why { font-size: 13px; opacity: 0.85; }
.pg-break label { display: flex; gap: 8px; align-items: center; min-height: 32px; }
.pg-break input[type=range] { flex: 1; min-width: 60px; accent-color: #0072B2; }
.pg-break input[type=checkbox] { width: 18px; height: 18px; accent-color: #0072B2; }
.pg-break a { color: LinkText; }
@media (pointer: coarse), (max-width: 760px) { .pg-break label { min-height: 44px; } }
`;

/** Every switch: name in the graph, words, what it shows, and the chapter that explains it. */
const breaks = (meta) => [
  ["queries", "queries", "Only the best proposals become queries.", "query_selection"],
  ["layers", "decoder layers", "They are counted from 0. Later layers place boxes better.", "decoder"],
  ["self_attention", "cut the decoder's self-attention",
    "A query attends only to itself: duplicates come back.", "decoder"],
  ["positions", "switch positions off", "A query no longer knows where its box is.", "decoder"],
  ["random", "select tokens at random", "Queries start anywhere: most objects are missed.", "query_selection"],
  ...meta.levels.map((name, i) => [`level ${i}`, `ignore level ${name}`,
    `The weights of all points on ${name} become 0.`, "deformable_attention"]),
];

function playground(el, meta, data) {
  const { live } = meta;
  const root = node("div", el, { class: "pg" });
  node("style", root, {}, LOOK);
  const top = node("div", root, { class: "pg-top" });
  const bar = node("div", top, { class: "pg-bar", role: "toolbar", "aria-label": "Scene" });
  const status = node("div", top, { class: "pg-status", role: "status" });
  const shown = node("div", root);
  const stored = unpack(meta, data);
  const limits = { queries: stored.boxes.shape[1], layers: stored.weights.shape[0] };
  const setting = { ...limits };
  const breaking = (name) => Number(Boolean(setting[name]));

  const photo = new Image();
  const first = () => (live.scene === null ? { picture: photo, shapes: [] }
    : { ...sceneOf(live.scene), picture: null });
  const scene = first();
  const size = meta.size;
  let [seed, armed, chosen, drag, tints] = [live.scene ?? 0, null, null, null, 0];
  let [fresh, followed] = [false, null]; // a new scene; the query that follows a shape

  // What the explorer reads, as from a kernel.
  const listeners = {};
  const state = { meta, arrays: stored, query: -1, layer: -1, head: -1, level: -1,
    paint: (pen, x, y, width, height) => {
      pen.save();
      pen.beginPath();
      pen.rect(x, y, width, height);
      pen.clip();
      pen.translate(x, y);
      paintScene(pen, scene, width, height);
      pen.restore();
    } };
  const model = {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; },
    save_changes: () => {},
    on: (event, call) => { listeners[event] = call; },
  };
  const refresh = () => listeners["change:data"]?.();

  const say = (text, progress = null) => {
    status.replaceChildren();
    if (progress !== null) node("progress", status, { max: 1, value: progress, "aria-label": "loading" });
    node("span", status, {}, text);
  };

  // --- the model in its worker
  const megabytes = ((live.files.runtime.bytes + live.files.model.bytes) / 1e6).toFixed(1);
  let worker = null;
  let [ready, busy, again] = [false, false, false];
  const fail = (why) => {
    worker?.terminate();
    [worker, ready, busy] = ["failed", false, false];
    Object.assign(scene, first());
    Object.assign(state, { arrays: stored, stale: false, query: -1 });
    meta.size = size;
    refresh();
    const served = location.protocol === "file:"
      ? "A browser loads no files beside a page that it opened from a disk. Type "
        + "python -m http.server in this folder, and open http://127.0.0.1:8000. "
      : "";
    say(`The model does not run here: ${why.replace(/\.$/, "")}. ${served}The stored answer remains.`);
    node("button", status, { type: "button" }, "try again")
      .addEventListener("click", () => { worker = null; load(); });
  };
  const load = () => {
    if (worker) return;
    try {
      worker = new Worker(new URL(live.files.worker.name, location));
    } catch (error) {
      return void fail(error.message);
    }
    say(`The model loads, ${megabytes} MB …`, 0);
    worker.onerror = (event) => fail(event.message || "its script cannot be loaded");
    worker.onmessage = ({ data: said }) => {
      if (said.failed) fail(said.failed);
      else if (said.all > said.done) say(`The model loads, ${megabytes} MB …`, said.done / said.all);
      else if (said.all) say("The model starts …", 1);
      else if (said.ready) { ready = true; ask(); } else answered(said);
    };
    worker.postMessage({ files: live.files, base: location.href });
  };
  const ask = () => {
    if (!ready) return load();
    if (busy) return void (again = true);
    [busy, again] = [true, false];
    el.setAttribute("aria-busy", "true");
    const [height, width] = live.input;
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.imageSmoothingQuality = "high";
    const [h, w] = meta.size;
    const scale = scene.picture ? 1 : Math.max(height / h, width / w);
    pen.scale(width / (w * scale), height / (h * scale));
    paintScene(pen, scene, w * scale, h * scale);
    const { data: pixels } = pen.getImageData(0, 0, width, height);
    const images = new Float32Array(3 * height * width);
    for (let i = 0; i < height * width; i++) {
      for (let c = 0; c < 3; c++) images[c * height * width + i] = pixels[4 * i + c] / 255;
    }
    const random = randomFrom(1);
    const one = (value) => ({ data: Float32Array.of(value), dims: [1] });
    worker.postMessage({ feeds: {
      images: { data: images, dims: [1, 3, height, width] },
      queries: one(setting.queries),
      self_attention: one(1 - breaking("self_attention")),
      positions: one(1 - breaking("positions")),
      levels: { data: Float32Array.from(meta.levels, (_, i) => 1 - breaking(`level ${i}`)),
        dims: [meta.levels.length] },
      added: { data: Float32Array.from({ length: meta.num_tokens },
        () => breaking("random") * 1000 * random()), dims: [meta.num_tokens] },
    } });
  };
  const answered = ({ answer, milliseconds }) => {
    busy = false;
    el.setAttribute("aria-busy", "false");
    if (state.query !== followed) chosen = null; // the reader has selected another query
    const [x, y] = canvas.drawn.box;
    const { x: toX, y: toY } = chosen ?? { x, y };
    state.arrays = arraysOf(meta, answer, setting.queries, setting.layers);
    state.query = fresh ? opening(state.arrays) : queryAt(state.arrays, toX, toY);
    [fresh, followed] = [false, state.query];
    state.layer = -1;
    state.stale = false;
    refresh();
    const [count, twice] = counted(state.arrays);
    say(`Live: ${count} detection${count === 1 ? "" : "s"}${twice ? `, ${twice} of them duplicates` : ""}; `
      + `${milliseconds.toFixed(0)} ms. Nothing leaves this browser.`);
    el.dataset.answers = Number(el.dataset.answers ?? 0) + 1;
    el.arrays = state.arrays;
    if (again) ask();
  };
  /** The scene changed: the old answer is not of it. */
  const changed = () => {
    if (!ready) state.stale = true;
    refresh();
    ask();
  };

  // --- the scene and its tools
  const add = (x, y, r = START) => {
    chosen = { kind: armed ?? KINDS[tints % KINDS.length], x, y, r, turn: 0,
      paint: PAINTS[tints++ % PAINTS.length] };
    scene.shapes.push(chosen);
    followed = state.query;
    changed();
    return chosen;
  };
  const remove = () => {
    scene.shapes.splice(scene.shapes.indexOf(chosen ?? scene.shapes.at(-1)), 1);
    chosen = null;
    changed();
  };
  const arm = (kind) => {
    armed = armed === kind ? null : kind;
    for (const [name, button] of Object.entries(tools)) {
      button.setAttribute("aria-pressed", String(name === armed));
    }
    if (armed && (ready || !worker)) say(`Drag in the picture to draw: ${kind}. Enter puts one in the middle.`);
  };
  const tools = {};
  for (const kind of KINDS) {
    const button = tools[kind] = node("button", bar, { type: "button", title: `draw: ${kind}`,
      "aria-label": `draw: ${kind}`, "aria-pressed": "false" });
    const icon = node("canvas", button, { width: 48, height: 48, style: "width:24px;height:24px" });
    paintShape(icon.getContext("2d"), { kind, x: 0.5, y: 0.5, r: 0.45, turn: 0, paint: ICON }, 48, 48);
    button.addEventListener("click", () => arm(kind));
  }
  const action = (words, call) => node("button", bar, { type: "button" }, words)
    .addEventListener("click", call);
  action("delete", remove);
  action("another scene", () => {
    chosen = null;
    fresh = true;
    meta.size = [256, 256];
    Object.assign(scene, sceneOf(++seed), { picture: null });
    changed();
  });
  const file = node("label", bar, { class: "pg-file" }, "your picture …");
  const input = node("input", file, { type: "file", accept: "image/*", "aria-label": "your picture" });
  const open = (given) => {
    const image = new Image();
    image.onload = () => {
      const [w, h] = [image.naturalWidth, image.naturalHeight];
      URL.revokeObjectURL(image.src);
      if (w * h > LARGEST || !w) {
        return say(`${given.name} has ${w} × ${h} pixels. Take a picture of at most 40 million pixels.`);
      }
      chosen = null;
      fresh = true;
      meta.size = [h, w];
      Object.assign(scene, { picture: image, shapes: [] });
      changed();
    };
    image.onerror = () => say(`${given.name} is not a picture that this browser can read.`);
    image.src = URL.createObjectURL(given);
  };
  input.addEventListener("change", () => { if (input.files[0]) open(input.files[0]); input.value = ""; });
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });

  render({ model, el: shown });
  const canvas = shown.querySelector("canvas[role=application]");
  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return canvas.drawn.toPlace(event.clientX - box.left, event.clientY - box.top);
  };
  const reach = (shape, x, y) => {
    const [h, w] = meta.size;
    return Math.hypot((shape.x - x) * w, (shape.y - y) * h) / Math.min(w, h);
  };
  const shapeAt = (x, y) => scene.shapes.findLast((s) => reach(s, x, y) < s.r);
  canvas.addEventListener("touchstart", (event) => { // elsewhere a finger scrolls the page
    if (armed || shapeAt(...placeOf(event.touches[0]))) event.preventDefault();
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    const [x, y] = placeOf(event);
    const shape = shapeAt(x, y);
    if (!shape && !armed) return;
    drag = { shape, dx: shape && shape.x - x, dy: shape && shape.y - y, x, y, moved: false };
    [chosen, followed] = [shape ?? null, state.query];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = placeOf(event);
    if (!drag.moved && reach(drag, x, y) < 0.012) return;
    drag.moved = true;
    if (drag.shape && drag.dx !== undefined) {
      Object.assign(drag.shape, { x: x + drag.dx, y: y + drag.dy });
    } else {
      drag.shape ??= add(drag.x, drag.y, 0.03);
      drag.shape.r = Math.max(0.03, reach(drag.shape, x, y));
    }
    changed();
  });
  const released = (event) => {
    if (drag && !drag.moved && !drag.shape && event.type === "pointerup") {
      add(drag.x, drag.y);
      drag.moved = true;
    }
    canvas.ignoreClick = Boolean(drag?.moved);
    const tapped = drag && !drag.moved && event.type === "pointerup" && event.pointerType === "touch";
    drag = null;
    if (tapped) canvas.dispatchEvent(new MouseEvent("click", event)); // touchstart took it
  };
  canvas.addEventListener("pointerup", released);
  canvas.addEventListener("pointercancel", released);
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter") add(0.5, 0.5);
    else if (event.key === "Delete" || event.key === "Backspace") remove();
    else if (event.shiftKey && step && chosen) {
      chosen.x += 0.02 * step[0];
      chosen.y += 0.02 * step[1];
      changed();
    } else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);

  // --- break it
  const broken = node("fieldset", root, { class: "pg-break" });
  node("legend", broken, {}, "Break it: change the running model");
  const resets = [];
  for (const [name, words, why, chapter] of breaks(meta)) {
    const line = node("div", broken);
    const label = node("label", line);
    const range = name in limits;
    const control = range
      ? { type: "range", min: 1, max: limits[name], value: limits[name], "aria-label": words }
      : { type: "checkbox", "aria-label": words };
    if (range) node("span", label, {}, words);
    const knob = node("input", label, control);
    const told = node("span", label, {}, range ? String(limits[name]) : words);
    const note = node("div", line, { class: "pg-why" }, `${why} `);
    const where = live.chapters === null ? {} : { href: `${live.chapters}${chapter}.html`, target: "_top" };
    node(live.chapters === null ? "span" : "a", note, where, `chapter ${chapter}`);
    const turn = () => {
      setting[name] = range ? Number(knob.value) : knob.checked;
      if (range) told.textContent = knob.value;
      if (ready) ask();
      else load();
    };
    knob.addEventListener("input", turn);
    resets.push(() => { knob.checked = false; if (range) knob.value = limits[name]; turn(); });
  }
  node("button", node("div", broken), { type: "button" }, "reset the model")
    .addEventListener("click", () => resets.forEach((reset) => reset()));

  say(`This scene is an example. Draw or move a shape: then the model loads (${megabytes} MB) and answers live.`);
  shown.addEventListener("pointerdown", load, { once: true, capture: true });
  photo.onload = refresh;
  photo.src = meta.image;
}

/** In a frame of the site: its colours, and as high as its content. */
function fitFrame() {
  try {
    const { body } = parent.document; // of this site only: another one throws
    const follow = () => {
      const scheme = { slate: "dark", default: "light" }[body.dataset.mdColorScheme];
      document.documentElement.style.colorScheme = scheme ?? "light dark";
    };
    new parent.MutationObserver(follow).observe(body, { attributes: true });
    follow();
    if (!frameElement) return;
    document.body.style.background = "transparent"; // the page's own
    const main = document.querySelector("main");
    new ResizeObserver(() => { frameElement.style.height = `${main.offsetHeight + 28}px`; }).observe(main);
  } catch {
    // opened alone, or from a disk: the system's colours stay
  }
}
