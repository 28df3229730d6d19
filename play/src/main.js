/** The page: reads the settings, samples, draws. What is computed is in sampler.js. */

import { load, readJson } from "./networks.js";
import { normals } from "./noise.js";
import { draw, toBytes, toNumbers } from "./pictures.js";
import { interpolate } from "./sampler.js";

const K = 6; // candidates
const PAUSE = 150; // milliseconds without a change before sampling begins

const form = document.querySelector("#settings");
const fields = form.elements;
const status = document.querySelector("#status");
const progress = document.querySelector("#progress");

function tell(text, isError = false) {
  status.textContent = text;
  status.classList.toggle("error", isError);
}

/** A canvas for an image. */
function canvas(size) {
  const made = document.createElement("canvas");
  made.width = made.height = size;
  return made;
}

/** A place in the row of images: what is drawn, and what stands below it. */
function place(size, name) {
  const figure = document.createElement("figure");
  const picture = canvas(size);
  picture.setAttribute("role", "img");
  const caption = document.createElement("figcaption");
  figure.append(picture, caption);
  document.querySelector("#pictures").append(figure);
  return {
    show(bytes, lines) {
      draw(picture, bytes);
      picture.setAttribute("aria-label", `${name}: ${lines.join(", ")}`);
      caption.replaceChildren(...lines.map((line) => {
        const span = document.createElement("span");
        span.textContent = line;
        return span;
      }));
    },
  };
}

/** The anchors, as radio buttons. */
function offer(anchors, size) {
  anchors.forEach(({ name, bytes }, i) => {
    const label = document.createElement("label");
    const choice = document.createElement("input");
    Object.assign(choice, { type: "radio", name: "anchor", value: i, defaultChecked: i === 0 });
    choice.setAttribute("aria-label", `image ${i + 1}, a ${name}`);
    const picture = canvas(size);
    draw(picture, bytes);
    label.append(choice, picture);
    document.querySelector("#anchors").append(label);
  });
}

// Settings and the address ------------------------------------------------------------------------

/** Takes the settings that the address names; returns what to say of those that it cannot take. */
function takeAddress() {
  const refused = [];
  form.reset();
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    const field = fields.namedItem(name);
    if (!field) {
      refused.push(name);
    } else if (field.type === "checkbox") {
      field.checked = value === "on";
    } else {
      const before = field.value;
      field.value = value;
      if (field.value !== value || (field.checkValidity && !field.checkValidity())) {
        field.value = before;
        refused.push(`${name}=${value}`);
      }
    }
  }
  if (!refused.length) return "";
  return `The address asks for ${refused.join(", ")}, which this page cannot do. `;
}

function settings() {
  const number = (name) => Number(fields.namedItem(name).value);
  return {
    w: number("w"),
    below: number("below"),
    silent: fields.namedItem("silent").checked,
    steps: number("steps"),
    eta: number("eta"),
    k: K,
  };
}

/** What the equation comes to with these settings. */
function inWords({ w, below, silent }) {
  if (silent) return "Now: the middle is zero at every step, whatever the anchor and w.";
  if (w === 1 || below === 0) return "Now: the anchor takes no part; these are plain samples.";
  const mixture = `${w} of the sample's middle and ${Number((1 - w).toFixed(2))} of the anchor's`;
  if (below === 1000) return `Now, at every step: ${mixture}.`;
  return `Now, at t < ${below}: ${mixture}. Before, at t ≥ ${below}: the sample's own middle.`;
}

function showSettings() {
  for (const span of form.querySelectorAll("[data-value-of]")) {
    span.textContent = fields.namedItem(span.dataset.valueOf).value;
  }
  document.querySelector("#now").textContent = inWords(settings());
}

// Sampling ----------------------------------------------------------------------------------------

let runs = 0; // a run that is not the last one ends

async function sample(networks, page, remark = "") {
  const own = ++runs;
  const seed = fields.namedItem("seed");
  if (!seed.checkValidity()) {
    tell(`The seed must be a whole number from ${seed.min} to ${seed.max}.`, true);
    return;
  }
  const chosen = settings();
  const anchor = page.anchors[Number(fields.namedItem("anchor").value)];
  const pixels = page.size * page.size;
  const begin = performance.now();
  tell(`${remark}Sampling …`);

  const verdicts = async (bytes) => {
    return (await networks.judge(bytes)).map((shares) => {
      const most = Math.max(...shares);
      const name = page.classes[shares.indexOf(most)];
      const isKept = name === anchor.name;
      return { isKept, lines: [`${name} ${isKept ? "✓" : "✗"}`, `${Math.round(100 * most)} %`] };
    });
  };
  const [ofAnchor] = await verdicts(anchor.bytes);
  if (own !== runs) return;
  page.first.show(anchor.bytes, [...ofAnchor.lines, "anchor"]);

  const noise = {
    branch: normals(seed.value, "noise branch"),
    anchor: normals(seed.value, "anchor noise"),
  };
  let step = 0;
  let kept = 0;
  for await (const { clean } of interpolate(networks, toNumbers(anchor.bytes), chosen, noise)) {
    const bytes = toBytes(clean, pixels);
    const seen = await verdicts(bytes);
    if (own !== runs) return;
    kept = seen.filter(({ isKept }) => isKept).length;
    seen.forEach(({ lines }, i) => {
      page.candidates[i].show(bytes.slice(3 * pixels * i, 3 * pixels * (i + 1)), lines);
    });
    progress.value = ++step / chosen.steps;
  }
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  tell(
    `${remark}The judge sees the anchor's ${page.content}, ${anchor.name}, in ${kept} of ${K} ` +
      `candidates (${chosen.steps} steps, ${seconds} s).`,
  );
}

async function start() {
  const page = await readJson("play.json");
  page.anchors = page.anchors.map(({ label, pixels }) => ({
    name: page.classes[label],
    bytes: Uint8Array.from(atob(pixels), (character) => character.charCodeAt(0)),
  }));
  offer(page.anchors, page.size);
  page.first = place(page.size, "image");
  page.candidates = Array.from({ length: K }, (_, i) => place(page.size, `candidate ${i + 1}`));
  let remark = takeAddress();
  showSettings();
  const networks = await load(page.size);

  const run = (text) => sample(networks, page, text).catch((error) => tell(error.message, true));
  let timer;
  const changed = () => {
    showSettings();
    history.replaceState(null, "", `#${new URLSearchParams(new FormData(form))}`);
    clearTimeout(timer);
    timer = setTimeout(run, PAUSE);
  };
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.querySelector("#redraw").addEventListener("click", () => {
    fields.namedItem("seed").value = Math.floor(Math.random() * 100_000);
    changed();
  });
  addEventListener("hashchange", () => {
    remark = takeAddress();
    showSettings();
    run(remark);
  });
  run(remark);
}

start().catch((error) => tell(error.message, true));
