"use strict";
// The columns in #data, and the formats of figures. Text is always set as text, never as markup.

const FATES = ["succeeded", "retried", "failed", "cut-off"];
const SAID = ["succeeded", "failed, retried", "failed", "cut off"];
const SUCCEEDED = 0;
const data = JSON.parse(document.getElementById("data").textContent);
const bars = {
  start: column(data.start, Float64Array), duration: column(data.duration, Float32Array),
  lane: column(data.lane, Uint32Array), task: column(data.index, Uint32Array),
  number: column(data.number, Uint32Array), fate: column(data.fate, Uint8Array),
};
const lost = column(data.lost, Uint32Array), text = column(data.text, Uint32Array);
const total = bars.start.length;

function column(base64, Type) {
  const raw = atob(base64), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Type(bytes.buffer);
}

// The bars sorted by lane, then by start: those of lane n are order[from[n]] … order[from[n + 1] - 1].
const from = new Uint32Array(data.lanes.length + 1), order = new Uint32Array(total);
for (let i = 0; i < total; i++) from[bars.lane[i] + 1]++;
for (let n = 0; n < data.lanes.length; n++) from[n + 1] += from[n];
const next = from.slice();
for (let i = 0; i < total; i++) order[next[bars.lane[i]]++] = i;

// Formats

function seconds(value) {
  if (value <= 0) return "0 s";
  if (value >= 59.95) {
    const whole = Math.round(value);
    return whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s`
      : `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
  }
  const [unit, name] = value < 0.9995e-3 ? [1e-6, "µs"] : value < 0.9995 ? [1e-3, "ms"] : [1, "s"];
  const figure = value / unit;
  return `${figure.toFixed(figure < 9.995 ? 2 : figure < 99.95 ? 1 : 0)} ${name}`;
}

const keyOf = (task) => data.keys === null ? String(task) : data.keys[task];

function errorOf(bar) {
  let low = 0, high = lost.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (lost[middle] === bar) return data.texts[text[middle]];
    if (lost[middle] < bar) low = middle + 1; else high = middle - 1;
  }
  return "";
}

// The tooltip

const tip = document.getElementById("tip");

function show(title, body, event) {
  const bold = document.createElement("b");
  bold.textContent = title;
  tip.replaceChildren(bold, body);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
}

function hide() { tip.hidden = true; }
