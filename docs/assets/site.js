/* What a page of the site does by itself: wide tables by keyboard, predictions, and symbols that
   show where they are computed. Nothing is sent; an answer stays in the reader's browser. */

const content = document.querySelector(".md-content");

/* A table that scrolls can be scrolled by keyboard. The theme wraps tables after us. */
const reachable = () =>
  content.querySelectorAll(".md-typeset__scrollwrap, .nb-html").forEach((wide) => (wide.tabIndex = 0));
reachable();
new MutationObserver(reachable).observe(content, { childList: true, subtree: true });

/* The map: its caption tells about the part that is pointed at; on a phone it begins where we are. */
for (const map of content.querySelectorAll(".map")) {
  const caption = map.querySelector("figcaption");
  const before = caption.innerHTML;
  const tell = (event) => {
    const part = event.target.closest?.("a[data-info]");
    if (part) caption.textContent = part.dataset.info;
  };
  map.addEventListener("mouseover", tell);
  map.addEventListener("focusin", tell);
  map.addEventListener("mouseleave", () => (caption.innerHTML = before));
  const here = map.querySelector(".part.here:not(.open)");
  if (here) map.scrollLeft = (here.getBBox().x / 864) * map.scrollWidth - map.clientWidth / 3;
}

/* Predict: what follows the question opens after an answer. */
const OUTPUT = ".nb-output, .nb-html, p:has(> img:only-child)";
const ENDS = "h1, h2, h3, .predict";

function folded(question) {
  const following = [];
  for (let next = question.nextElementSibling; next && !next.matches(ENDS); next = next.nextElementSibling)
    following.push(next);
  const first = following.findIndex((part) => part.matches(OUTPUT));
  if (first < 0) return null;
  const last = following.at(-1).nextElementSibling?.matches(".predict") ? following.length - 1 : following.length;
  const fold = document.createElement("details");
  fold.className = "predicted";
  fold.append(Object.assign(document.createElement("summary"), { textContent: "What happens" }));
  following[first].before(fold);
  fold.append(...following.slice(first, last));
  return fold;
}

function ask(question, number) {
  const fold = folded(question);
  if (!fold) return;
  const key = `predict ${location.pathname} ${number}`;
  const form = document.createElement("form");
  const legend = Object.assign(document.createElement("p"), { textContent: "Your prediction" });
  const said = Object.assign(document.createElement("p"), { className: "predict-said" });
  said.setAttribute("role", "status");
  const answered = (answer) => {
    said.textContent = `You said: ${answer}. What happens stands below; it stays in this browser.`;
    fold.open = true;
    form.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", b.value === answer));
  };
  const choices = JSON.parse(question.dataset.choices);
  const buttons = choices.map((choice) =>
    Object.assign(document.createElement("button"), { type: "button", value: choice, textContent: choice }));
  const own = Object.assign(document.createElement("input"), { ariaLabel: "Your prediction" });
  const done = Object.assign(document.createElement("button"), { textContent: "Show what happens" });
  form.append(legend, ...(choices.length ? buttons : [own, done]), said);
  form.addEventListener("click", (event) => {
    if (event.target.value && event.target.type === "button") keep(event.target.value);
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); keep(own.value || "nothing"); });
  const keep = (answer) => {
    try { localStorage.setItem(key, answer); } catch { /* a browser that keeps nothing */ }
    answered(answer);
  };
  question.append(form);
  try { if (localStorage.getItem(key)) answered(localStorage.getItem(key)); } catch { /* the same */ }
}
content.querySelectorAll(".predict").forEach(ask);

/* Equation, symbol and code: pointing at one shows the others. A table says which name a symbol has. */
const text = (node) => node.textContent.replace(/\s+/g, "");
const names = new Map();
for (const table of content.querySelectorAll("table")) {
  const head = [...table.querySelectorAll("th")].map(text);
  if (head[0] !== "symbol" || head[1] !== "name") continue;
  for (const row of table.querySelectorAll("tbody tr")) {
    const [symbol, name] = row.cells;
    for (const code of name.querySelectorAll("code"))
      names.set(text(code), { row, symbol: symbol.querySelector("math") && text(symbol) });
  }
}
const tokens = [...content.querySelectorAll("pre .n, pre .bp, p code, td code")].filter((t) => names.has(text(t)));
const symbols = [...content.querySelectorAll("math :is(mi, msub, mover, msup)")];

function shown(name) {
  const { row, symbol } = names.get(name);
  return [row, ...tokens.filter((t) => text(t) === name), ...symbols.filter((s) => text(s) === symbol)];
}
function nameOf(node) {
  if (node.matches("pre .n, pre .bp, p code, td code")) return names.has(text(node)) ? text(node) : null;
  for (let s = node; s && s.localName !== "math"; s = s.parentElement)
    for (const [name, { symbol }] of names) if (symbol && symbol === text(s)) return name;
  return null;
}
/* The rows of a chapter whose prose names the equation, and the equation. */
const rowsOf = (id) =>
  [...content.querySelectorAll(`.chapter-row:has(a[href$="#${id}"]), .source:has(a[href$="#${id}"])`)];

let lit = [];
function light(nodes) {
  lit.forEach((node) => node.classList.remove("lit"));
  lit = nodes;
  lit.forEach((node) => node.classList.add("lit"));
}
function point(event) {
  const node = event.target;
  if (!(node instanceof Element)) return;
  const name = nameOf(node);
  const equation = node.closest(".equation[id]") ?? content.querySelector(node.closest("a[href^='#eq-']")?.getAttribute("href") ?? "none");
  light([...(name ? shown(name) : []), ...(equation ? [equation, ...rowsOf(equation.id)] : [])]);
}
content.addEventListener("mouseover", point);
content.addEventListener("focusin", point);
