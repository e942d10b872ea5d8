// The histogram: durations differ by orders of magnitude, so the bins have equal widths on a logarithmic scale

function svg(name, attributes, parent) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
}

function histogram() {
  const box = document.getElementById("histogram"), width = box.clientWidth, height = box.clientHeight;
  box.replaceChildren();
  if (!total) return;
  const scale = binScale(Math.max(10, Math.min(36, Math.floor(width / 14))));
  const counts = Array.from({ length: scale.bins }, () => [0, 0, 0, 0]);
  for (let i = 0; i < total; i++) counts[scale.binOf(bars.duration[i])][bars.fate[i]]++;
  const most = Math.max(...counts.map((bin) => bin.reduce((a, b) => a + b)));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, box);
  const top = 16, base = height - 22, each = width / scale.bins;
  svg("line", { x1: 0, x2: width, y1: top, y2: top }, picture);
  svg("text", { x: 0, y: top - 5 }, picture).textContent = `${most.toLocaleString("en")} attempts`;
  counts.forEach((bin, n) => drawBin(picture, bin, n, { scale, most, top, base, each }));
  svg("line", { x1: 0, x2: width, y1: base, y2: base }, picture);
  drawDurations(picture, scale, width, height);
  box.dataset.counted = counts.flat().reduce((a, b) => a + b, 0);
}

function binScale(bins) {
  let low = Infinity, high = 0;
  for (const one of bars.duration) { low = Math.min(low, Math.max(one, 1e-7)); high = Math.max(high, one); }
  high = Math.max(high, low);
  const narrow = Math.max(0, 1.25 - high / low) / 2;  // all alike: some air around them
  const from = Math.log10(low * (1 - narrow)), span = Math.log10(high * (1 + narrow) * 1.0001) - from;
  return {
    bins, from, span,
    binOf: (one) => Math.min(bins - 1, Math.max(0, Math.floor((Math.log10(Math.max(one, 1e-7)) - from) / span * bins))),
    edge: (n) => 10 ** (from + span * n / bins),
  };
}

function drawBin(picture, bin, n, { scale, most, top, base, each }) {
  let y = base;
  bin.forEach((count, fate) => {
    const tall = count ? Math.max(1.5, count / most * (base - top)) : 0;
    y -= tall;
    if (count) svg("rect", { x: n * each + 0.5, y, width: Math.max(1, each - 1), height: tall, fill: `var(--${FATES[fate]})` }, picture);
  });
  const hit = svg("rect", { x: n * each, y: top, width: each, height: base - top, class: "hit" }, picture);
  hit.addEventListener("pointermove", (event) => show(
    `${seconds(scale.edge(n))} to ${seconds(scale.edge(n + 1))}`,
    bin.map((count, fate) => count ? `${count.toLocaleString("en")} ${SAID[fate]}` : "").filter(Boolean).join("\n") || "none",
    event));
  hit.addEventListener("pointerleave", hide);
}

function drawDurations(picture, scale, width, height) {
  let free = 0;
  for (let power = -8; power < 7; power++) for (const one of [1, 2, 5]) {
    const value = one * 10 ** power, x = (Math.log10(value) - scale.from) / scale.span * width;
    if (x < free || x > width - 30) continue;
    svg("text", { x, y: height - 5, "text-anchor": x < 20 ? "start" : "middle" }, picture).textContent =
      seconds(value).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ").replace(" 0 s", "");
    free = x + 62;
  }
}

// Start

for (const item of document.querySelectorAll(".legend li"))
  item.hidden = !bars.fate.includes(FATES.indexOf(item.className));

function start() {
  layOut();
  histogram();
}

plot.dataset.lanes = data.lanes.length;
plot.dataset.bars = total;
start();
addEventListener("resize", start);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", start);
requestAnimationFrame(() => requestAnimationFrame(() => { document.documentElement.dataset.ready = "yes"; }));
