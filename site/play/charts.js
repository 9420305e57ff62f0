// What the pages with figures share: words, numbers, controls whose state is in the address, scales, links.
const $ = (id) => document.getElementById(id);
const { lang: LANG, dataset: { folder: FOLDER } } = document.body; // as JupyterLab drops what <html> has; FOLDER: of this page
const escaped = (words) => String(words).replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

// Words: TEXT[key] with {names} replaced. The translations of these, and of elements with data-t, are put in when the page is made.
const say = (key, values = {}) => TEXT[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

// Numbers, with the digits that the course gives them (mnist_gpu/measuring/drawing.py: number, span).
const digits = (x, count) => Number(x.toPrecision(count)).toLocaleString(LANG, { maximumFractionDigits: 12 });
const number = (x) => (x < 100 ? digits(x, 3) : Math.round(x).toLocaleString(LANG));
function span([low, high], per = 1) {
  const [from, to] = [digits(low / per, 2), digits(high / per, 2)];
  return from === to ? from : say("span", { low: from, high: to });
}
const percent = (share) => say("percent", { n: Math.round(100 * share) });
const timeUnit = (seconds) => (seconds < 1e-3 ? [1e-6, "μs"] : seconds < 1 ? [1e-3, "ms"] : [1, "s"]);
const time = (seconds) => `${number(seconds / timeUnit(seconds)[0])} ${timeUnit(seconds)[1]}`;
const timeSpan = (range) => `${span(range, timeUnit(range[1])[0])} ${timeUnit(range[1])[1]}`;
const middle = ([low, high]) => Math.sqrt(low * high);

// Published figures (data/published/cards.json). SHEET, MEASURED: their kinds.
const SHEET = "data sheet", MEASURED = "measured by others";
const { cards: CARDS, sources: SOURCES } = JSON.parse($("cards").textContent);
const figuresOf = (card, quantity, kind) =>
  CARDS[card].figures
    .filter((f) => f.quantity === quantity && (kind === undefined || f.kind === kind))
    .map((f) => ({ card, ...f }));
const everyFigure = (quantity, kind) => Object.keys(CARDS).flatMap((card) => figuresOf(card, quantity, kind));
const figure = (card, quantity, kind) => figuresOf(card, quantity, kind)[0]?.value;
const sourceLink = ({ url, title, date }) => say("dated", { link: `<a href="${escaped(url)}">${escaped(title)}</a>`, date });
const cited = (f) => sourceLink(SOURCES[f.source]);
// A line for each source, with all that comes from it. items: [words, source].
function bySource(items) {
  const lines = new Map();
  for (const [words, source] of items) lines.set(source, [...(lines.get(source) ?? []), words]);
  return [...lines].map(([source, words]) => `<li>${say("sourced", { words: escaped(words.join(say("also"))), link: sourceLink(source) })}</li>`).join("");
}

// Controls: CONTROLS names each input, select or group of radio buttons of the form, with what its position means
// (value), the reverse (position), and how it is written (text). Their state is kept in the address, after the #.
let CONTROLS = {};
const field = (name) => $("controls").elements[name];
function state() {
  const read = (name, { value = (x) => x }) => {
    const input = field(name);
    return input.type === "checkbox" ? input.checked : input.type === "range" ? value(Number(input.value)) : input.value;
  };
  return Object.fromEntries(Object.entries(CONTROLS).map(([name, control]) => [name, read(name, control)]));
}
function setTo(values) {
  for (const [name, wanted] of Object.entries(values)) {
    if (!Object.hasOwn(CONTROLS, name)) continue;
    const input = field(name), { position = (x) => x } = CONTROLS[name];
    if (input.type === "checkbox") input.checked = wanted === true || wanted === "1";
    else if (input.type === "range") {
      const at = position(Number(wanted));
      if (wanted !== "" && Number.isFinite(at)) input.value = at; // the browser keeps it between min and max
    } else if ([...(input.options ?? input)].some((option) => option.value === wanted)) input.value = wanted;
  }
}
function run(controls, draw) {
  CONTROLS = controls;
  const form = $("controls"), begin = state();
  const show = () => {
    const now = state();
    for (const [name, { text }] of Object.entries(controls)) {
      if (!text) continue;
      field(name).setAttribute("aria-valuetext", ($(`${name}-now`).textContent = text(now[name])));
    }
    draw(now);
  };
  const fromAddress = () => {
    setTo({ ...begin, ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))) });
    show();
  };
  form.addEventListener("input", () => {
    const kept = Object.entries(state()).map(([name, value]) => [name, value === true ? 1 : value === false ? 0 : value]);
    try {
      history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
    } catch {} // a frame without an address of its own, as JupyterLab's
    show();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", fromAddress);
  fromAddress();
  let width = document.body.clientWidth;
  new ResizeObserver(() => {
    if (width !== document.body.clientWidth) show((width = document.body.clientWidth));
  }).observe(document.body);
}

// Figures: drawn in pixels, so that letters stay as large on a narrow screen; the label is the sentence below.
function picture(svg, height, says, paint) {
  const width = Math.max(280, svg.parentElement.clientWidth);
  const high = typeof height === "function" ? height(width) : height;
  svg.setAttribute("viewBox", `0 0 ${width} ${high}`);
  svg.setAttribute("height", high);
  svg.setAttribute("aria-label", says);
  svg.innerHTML = paint(width);
}
const linear = (from, to, left, right) => (x) => left + ((x - from) / (to - from)) * (right - left);
const logarithmic = (from, to, left, right) => (x) => linear(Math.log(from), Math.log(to), left, right)(Math.log(x));
const text = (x, y, words, kind = "", more = "") =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" class="${kind}" ${more}>${escaped(words)}</text>`;
const box = (x, y, width, height, kind, more = "") =>
  `<rect x="${x.toFixed(2)}" y="${y.toFixed(1)}" width="${Math.max(0, width).toFixed(2)}" height="${height.toFixed(1)}" class="${kind}" ${more}/>`;
const path = (points, kind, more = "") =>
  `<path d="M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}" class="${kind}" ${more}/>`;

// Where the links to chapters lead. Jupyter shows a file under /files/, and opens a notebook under /lab/tree/. In
// JupyterLab's viewer, which has no address, a link opens nothing: its file's name stands there. In the web edition they
// lead to pages: site/conf.py sees to that.
for (const link of document.querySelectorAll("header a")) {
  if (location.pathname.includes("/files/")) link.href = link.href.replace("/files/", "/lab/tree/");
  else if (self.origin === "null" && self !== top) {
    const { pathname } = new URL(link.getAttribute("href"), `https://course/${FOLDER}/`);
    link.replaceWith(say("file", { link: link.textContent, path: pathname.slice(1) }));
  }
}
