// The timeline: the canvas is only as high as the visible part, and is redrawn on every scroll and zoom

const plot = document.getElementById("timeline"), canvas = plot.querySelector("canvas");
const below = plot.querySelector(".below"), pen = canvas.getContext("2d");
const AXIS = 24, MARGIN = 6, FONT = "11px system-ui, sans-serif";
const end = Math.max(data.wall, total ? bars.start[total - 1] + bars.duration[total - 1] : 0, 1e-6);
const view = { from: 0, to: end, width: 0, height: 0, gutter: 0, lane: 0 };
let names = data.lanes, colours = {}, hovered = -1, selection = null, pending = false;

function layOut() {
  const lanes = data.lanes.length, style = getComputedStyle(document.documentElement);
  for (const name of ["text", "muted", "line", "track", "select", "card", ...FATES])
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  view.width = plot.clientWidth;
  const most = parseFloat(getComputedStyle(plot).maxHeight) - AXIS;
  view.lane = Math.min(26, Math.max(5, Math.floor(most / Math.max(lanes, 4))));
  view.height = Math.min(lanes * view.lane, most) + AXIS;
  pen.font = FONT;
  view.gutter = named() ? nameLanes(view.width * 0.22) : 0;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(view.width * scale);
  canvas.height = Math.round(view.height * scale);
  canvas.style.height = `${view.height}px`;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  below.style.height = `${Math.max(0, lanes * view.lane + AXIS - view.height)}px`;
  redraw();
}

// If names are too long, drop the prefix that they share. Returns the width that they take.
function nameLanes(most) {
  const widest = () => 10 + Math.max(0, ...names.slice(0, 500).map((name) => pen.measureText(name).width));
  names = data.lanes;
  if (widest() > most && names.length > 1) {
    let same = 0;
    const first = names[0];
    while (same < first.length - 1 && !/\d/.test(first[same]) && names.every((name) => name[same] === first[same])) same++;
    names = names.map((name) => name.slice(same));
  }
  return Math.min(widest(), most);
}

const named = () => view.lane >= 12;
const room = () => view.width - view.gutter - MARGIN;
const xOf = (instant) => view.gutter + (instant - view.from) / (view.to - view.from) * room();
const instantAt = (x) => view.from + (x - view.gutter) / room() * (view.to - view.from);
const yOf = (lane) => AXIS + lane * view.lane - plot.scrollTop;

function redraw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; draw(); });
}

function draw() {
  pen.clearRect(0, 0, view.width, view.height);
  pen.save();
  pen.beginPath();
  pen.rect(0, AXIS, view.width, view.height - AXIS);
  pen.clip();
  const first = Math.floor(plot.scrollTop / view.lane);
  const last = Math.min(data.lanes.length, first + Math.ceil(view.height / view.lane) + 1);
  let drawn = 0;
  for (let lane = first; lane < last; lane++) drawn += drawLane(lane, yOf(lane));
  if (hovered >= 0) outline(hovered);
  pen.restore();
  drawAxis();
  if (selection !== null) {
    pen.fillStyle = colours.select;
    pen.fillRect(Math.min(...selection), AXIS, Math.abs(selection[1] - selection[0]), view.height - AXIS);
  }
  plot.dataset.drawn = drawn;
}

function firstIn(lane) {
  let low = from[lane], high = from[lane + 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bars.start[order[middle]] < view.from) low = middle + 1; else high = middle;
  }
  return Math.max(from[lane], low - 1);
}

// Bars less than three pixels wide are added up per pixel column: the darker, the busier was the worker.
function drawLane(lane, y) {
  const gap = view.lane >= 9 ? 3 : 1, height = view.lane - gap, left = view.gutter, right = view.width - MARGIN;
  pen.fillStyle = colours.track;
  pen.fillRect(left, y, right - left, height);
  const busy = new Float32Array(Math.ceil(right - left) + 2), special = [];
  let drawn = 0;
  pen.fillStyle = colours.succeeded;
  for (let at = firstIn(lane); at < from[lane + 1]; at++) {
    const bar = order[at], x = Math.max(left, xOf(bars.start[bar]));
    if (bars.start[bar] > view.to) break;
    const until = Math.min(right, xOf(bars.start[bar] + bars.duration[bar])), width = until - x;
    if (until < left) continue;
    drawn++;
    if (bars.fate[bar] !== SUCCEEDED) special.push(bar, x, width);
    else if (width >= 3) pen.fillRect(x, y, width - 1, height);
    else busy[Math.floor(x - left)] += Math.max(width, 0.02);
  }
  drawBusy(busy, left, y, height);
  drawSpecial(special, y, height);
  if (named()) drawName(names[lane], y + height / 2);
  return drawn;
}

function drawBusy(busy, left, y, height) {
  const shades = 5, shade = (x) => busy[x] > 0 ? Math.max(1, Math.min(shades, Math.round(busy[x] * shades))) : 0;
  for (let x = 0; x < busy.length;) {
    let stop = x + 1;
    const level = shade(x);
    while (stop < busy.length && shade(stop) === level) stop++;
    if (level) {
      pen.globalAlpha = 0.25 + 0.75 * level / shades;
      pen.fillRect(left + x, y, stop - x, height);
    }
    x = stop;
  }
  pen.globalAlpha = 1;
}

// Failures are drawn last and at least two pixels wide, so that they cannot be overlooked.
function drawSpecial(special, y, height) {
  const painted = [];
  for (const fate of [3, 1, 2]) {
    pen.fillStyle = colours[FATES[fate]];
    for (let i = 0; i < special.length; i += 3) {
      const x = special[i + 1], width = special[i + 2];
      if (bars.fate[special[i]] !== fate || (width < 2 && painted[fate] === Math.floor(x))) continue;
      painted[fate] = Math.floor(x);
      pen.fillRect(x, y, Math.max(2, width - 1), height);
    }
  }
}

function drawName(name, y) {
  pen.font = FONT;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  pen.fillStyle = colours.muted;
  const wide = view.gutter - 10;
  let shown = name;  // the end is kept, because it tells workers apart
  while (shown.length > 1 && pen.measureText(shown).width > wide)
    shown = "…" + shown.slice(shown.startsWith("…") ? 2 : 1);
  pen.fillText(shown, view.gutter - 8, y);
}

function outline(bar) {
  const x = xOf(bars.start[bar]), width = Math.max(2, xOf(bars.start[bar] + bars.duration[bar]) - x);
  pen.strokeStyle = colours.text;
  pen.strokeRect(x - 0.5, yOf(bars.lane[bar]) - 0.5, width, view.lane - (view.lane >= 9 ? 2 : 0));
}

const STEPS = [1, 2, 5].flatMap((one) => Array.from({ length: 9 }, (_, power) => one * 10 ** (power - 7)))
  .concat([15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400])
  .filter((step) => step < 60 && step !== 50 || step % 60 === 0).sort((a, b) => a - b);

function drawAxis() {
  const step = STEPS.find((one) => one / (view.to - view.from) * room() >= (view.width < 500 ? 56 : 72)) ?? STEPS.at(-1);
  pen.font = FONT;
  pen.textBaseline = "top";
  for (let n = Math.ceil(view.from / step - 1e-9); n * step <= view.to; n++) {
    const x = Math.round(xOf(n * step)) + 0.5;
    pen.fillStyle = colours.line;
    pen.fillRect(x, AXIS - 5, 1, 5);
    pen.fillStyle = colours.muted;
    const label = tick(n * step, step), wide = pen.measureText(label).width;
    pen.textAlign = "left";
    pen.fillText(label, Math.max(0, Math.min(x - wide / 2, view.width - wide)), 4);
  }
}

function tick(instant, step) {
  if (step >= 60) return seconds(instant).replace(" 0 s", "").replace(" 0 min", "");
  if (instant >= 60) return `${Math.floor(instant / 60)} min ${(instant % 60).toFixed(decimals(step))} s`;
  const [unit, name] = view.to < 2e-3 ? [1e-6, "µs"] : view.to < 1 ? [1e-3, "ms"] : [1, "s"];
  return `${(instant / unit).toFixed(decimals(step / unit))} ${name}`;
}

const decimals = (step) => Math.max(0, -Math.floor(Math.log10(step) + 1e-9));

// Zoom

function zoomTo(start, stop) {
  const span = Math.min(end, Math.max(stop - start, 1e-6));
  view.from = Math.max(0, Math.min(start, end - span));
  view.to = view.from + span;
  redraw();
}

function zoomBy(factor) {
  const middle = (view.from + view.to) / 2, half = (view.to - view.from) * factor / 2;
  zoomTo(middle - half, middle + half);
}

function shift(share) {
  const by = (view.to - view.from) * share;
  zoomTo(view.from + by, view.to + by);
}

const ZOOMS = { in: () => zoomBy(0.5), out: () => zoomBy(2), all: () => zoomTo(0, end) };
const KEYS = {
  "+": ZOOMS.in, "=": ZOOMS.in, "-": ZOOMS.out, 0: ZOOMS.all,
  ArrowLeft: () => shift(-0.25), ArrowRight: () => shift(0.25),
};
for (const button of document.querySelectorAll("[data-zoom]"))
  button.addEventListener("click", ZOOMS[button.dataset.zoom]);
plot.addEventListener("dblclick", ZOOMS.all);
plot.addEventListener("scroll", redraw);
plot.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

const within = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
plot.addEventListener("pointerdown", (event) => {
  const [x, y] = within(event);
  if (event.button || y < 0 || x > view.width) return;
  plot.setPointerCapture(event.pointerId);
  selection = [Math.max(x, view.gutter), Math.max(x, view.gutter)];
});
plot.addEventListener("pointermove", (event) => {
  const [x, y] = within(event);
  if (selection !== null) selection[1] = Math.min(view.width - MARGIN, Math.max(view.gutter, x));
  hover(x, y, event);
  redraw();
});
plot.addEventListener("pointerup", () => {
  const [a, b] = selection ?? [0, 0];
  selection = null;
  if (Math.abs(a - b) > 4) zoomTo(instantAt(Math.min(a, b)), instantAt(Math.max(a, b)));
  redraw();
});
for (const name of ["pointercancel", "pointerleave"])
  plot.addEventListener(name, () => { selection = null; hovered = -1; hide(); redraw(); });

function hover(x, y, event) {
  const lane = Math.floor((y - AXIS + plot.scrollTop) / view.lane);
  hovered = y >= AXIS && x >= view.gutter && lane < data.lanes.length ? nearest(lane, x) : -1;
  if (hovered < 0) return hide();
  show(keyOf(bars.task[hovered]), about(hovered), event);
}

// The bar under the pointer or within three pixels of it; a failed one is preferred.
function nearest(lane, x) {
  let found = -1, least = 3.5;
  for (let at = firstIn(lane); at < from[lane + 1]; at++) {
    const bar = order[at], start = xOf(bars.start[bar]);
    if (start > x + 4) break;
    const away = Math.max(0, start - x, x - xOf(bars.start[bar] + bars.duration[bar]));
    const closer = away - (bars.fate[bar] === SUCCEEDED ? 0 : 1);
    if (closer < least) [found, least] = [bar, closer];
  }
  return found;
}

function about(bar) {
  const start = bars.start[bar], duration = bars.duration[bar], number = bars.number[bar];
  return [
    SAID[bars.fate[bar]] + (number > 1 ? `, attempt ${number}` : ""),
    `${seconds(duration)}, from ${seconds(start)} to ${seconds(start + duration)}`,
    data.lanes[bars.lane[bar]],
    errorOf(bar),
  ].filter(Boolean).join("\n");
}
