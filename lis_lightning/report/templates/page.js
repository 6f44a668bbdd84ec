"use strict";
// Figures, what is shown in them, light and dark, and a page that loads itself anew while its run goes on.
const root = document.documentElement;
const stored = (kind, key, value) => {
  try { return value === undefined ? kind.getItem(key) : kind.setItem(key, value); } catch { return null; }
};
const boxes = () => [...document.querySelectorAll("input[data-run], input[data-layer]")];
const boxName = (box) => `lis-${box.dataset.run ?? box.dataset.layer}-${location.pathname}`;

function colours() {
  const style = getComputedStyle(root), of = (name) => style.getPropertyValue(name).trim();
  const axis = { color: of("--soft"), gridcolor: of("--rule"), zerolinecolor: of("--soft"), linecolor: of("--rule") };
  return { font: { color: of("--ink"), family: "system-ui, sans-serif", size: 13 }, axis };
}

// On a phone the letters are smaller, there are fewer ticks, and the direction of an axis has a line of its own.
function titled(axis, narrow) {
  const text = (axis?.title?.text ?? "").replace("<br>(", " (");
  return { text: narrow ? text.replace(" (", "<br>(") : text, standoff: 8, font: { size: narrow ? 11 : 13 } };
}

// What depends on colours and width in the layout of a figure.
function dress(layout, width) {
  const { font, axis } = colours(), narrow = width < 560;
  const out = { font: { ...font, size: narrow ? 11 : 13 }, hoverlabel: { font: { family: font.family } } };
  for (const key of Object.keys(layout).filter((name) => /^[xy]axis/.test(name)).concat("xaxis", "yaxis"))
    out[key] = { ...layout[key], ...axis, automargin: true, title: titled(layout[key], narrow) };
  if (narrow) out.xaxis.nticks = 5; else delete out.xaxis.nticks;
  return out;
}

function visible(meta) {
  const off = (box) => box && !box.checked;
  const { run, layer } = meta ?? {};
  return !(run !== undefined && off(document.querySelector(`input[data-run="${run}"]`)))
    && !(layer !== undefined && off(document.querySelector(`input[data-layer="${layer}"]`)));
}

function show() {
  for (const figure of document.querySelectorAll(".figure")) {
    if (!figure.data) continue;
    Plotly.restyle(figure, { visible: figure.data.map((trace) => visible(trace.meta)) });
  }
  for (const part of document.querySelectorAll("[data-of-run]")) part.hidden = !visible({ run: part.dataset.ofRun });
}

const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

async function draw() {
  await painted();  // the words first: to compile plotly takes longer than all the rest
  const packed = document.getElementById("plotly-gz");
  if (packed) {
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }
  for (const figure of document.querySelectorAll(".figure")) {
    const { data, layout } = JSON.parse(document.getElementById(`data-${figure.dataset.figure}`).textContent);
    for (const trace of data) trace.visible = visible(trace.meta);
    figure.style.height = `${layout.height}px`;  // in a window of another width plotly takes the height from here
    await Plotly.newPlot(figure, data, { ...layout, ...dress(layout, figure.clientWidth) }, { responsive: true, displaylogo: false });
    await painted();
  }
  root.dataset.drawn = "1";
}

function dressAnew() {
  for (const figure of document.querySelectorAll(".figure"))
    if (figure.data) Plotly.relayout(figure, dress(figure.layout, figure.clientWidth));
}

const remembered = stored(localStorage, "lis-theme");
if (remembered) root.dataset.theme = remembered;
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  stored(localStorage, "lis-theme", root.dataset.theme);
  dressAnew();
});
for (const query of ["(prefers-color-scheme: dark)", "(max-width: 40rem)"]) matchMedia(query).addEventListener("change", dressAnew);

for (const box of boxes()) {
  const before = stored(sessionStorage, boxName(box));
  if (before !== null && before !== undefined) box.checked = before === "1";
  box.addEventListener("change", () => { stored(sessionStorage, boxName(box), box.checked ? "1" : "0"); show(); });
}
for (const button of document.querySelectorAll("[data-all]"))
  button.addEventListener("click", () => {
    for (const box of document.querySelectorAll("input[data-run]")) {
      box.checked = button.dataset.all === "1";
      stored(sessionStorage, boxName(box), button.dataset.all);
    }
    show();
  });

// From when all is drawn: a slow machine would else load for ever.
function reloadLater() {
  if (!document.body.dataset.reload) return;
  const place = `lis-scroll-${location.pathname}`, at = stored(sessionStorage, place);
  if (at) scrollTo(0, Number(at));
  setTimeout(() => { stored(sessionStorage, place, String(scrollY)); location.reload(); }, 1000 * document.body.dataset.reload);
}
for (const part of document.querySelectorAll("[data-of-run]")) part.hidden = !visible({ run: part.dataset.ofRun });
draw().then(reloadLater);
