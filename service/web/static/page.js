// The page at /: pictures in, scores and heatmaps out, over the same API that everybody else uses.

import { commands } from "./curl.js";
import { hasKey, keepKey, score } from "./service.js";

const find = (selector, within = document) => within.querySelector(selector);
const LETTERS = ["A", "B"];
// What re-encoding, mirroring or a slight crop of a picture changes at most, nine times of ten: docs/concepts/complexity.md.
const NOISE = 0.03;
const SMALL_PX = 192; // an icon is shown larger than it is, or nobody would see its map

class Panel {
  constructor(letter) {
    this.letter = letter;
    this.root = find("#panel").content.firstElementChild.cloneNode(true);
    this.root.classList.add("empty");
    const id = `file-${letter}`;
    this.input = find("input", this.root);
    this.input.id = id;
    find("label", this.root).htmlFor = id;
    const title = find("h2", this.root);
    title.id = `title-${letter}`;
    title.textContent = `Picture ${letter}`;
    this.root.setAttribute("aria-labelledby", title.id);
    this.input.addEventListener("change", () => {
      if (this.input.files[0]) this.show(this.input.files[0]);
      this.input.value = ""; // so that the same file can be chosen again
    });
    const opacity = this.part(".heatmap input");
    opacity.id = `opacity-${letter}`;
    this.part(".heatmap label").htmlFor = opacity.id;
    this.part(".remove").setAttribute("aria-label", `Remove picture ${letter}`);
    opacity.addEventListener("input", () => setOpacity(opacity.value));
    find(".again", this.root).addEventListener("click", () => this.askAgain());
    find(".remove", this.root).addEventListener("click", () => removePanel(this));
    this.root.tabIndex = -1;
    this.file = null;
    this.origin = {}; // of the file, if the reader has none of his own: {url} where it is, or {pasted}
    this.answer = null;
    this.asking = null;
  }

  part(selector) {
    return find(selector, this.root);
  }

  show(file, origin = {}) {
    taken += 1;
    this.file = file;
    this.origin = origin;
    this.root.classList.remove("empty");
    this.part(".choose").textContent = "Choose another";
    const picture = this.part(".picture");
    if (picture.src) URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(file);
    picture.onload = () => {
      const larger = SMALL_PX / Math.max(picture.naturalWidth, picture.naturalHeight);
      picture.style.width = larger > 1 ? `${larger * picture.naturalWidth}px` : "";
    };
    // What the browser cannot show either is only a name.
    picture.onerror = () => { this.part(".stack").hidden = true; };
    this.part(".stack").hidden = false;
    this.part("figcaption").textContent = file.name;
    this.part("figure").hidden = false;
    this.ask();
    this.comeIntoView();
  }

  // A sample is chosen, and a picture pasted, wherever the reader is on the page.
  comeIntoView() {
    const { top } = this.root.getBoundingClientRect();
    if (top < 0 || top > innerHeight / 2) this.root.scrollIntoView();
  }

  async ask() {
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    this.answer = null;
    find("#told").hidden = true;
    for (const part of [".result", ".problem", ".map", ".heatmap"]) this.part(part).hidden = true;
    this.root.classList.remove("failed", "mapped");
    this.showSent(1);
    this.part(".working").hidden = false;
    say(""); // or the same answer again would be no news to who listens
    this.root.setAttribute("aria-busy", "true");
    refresh();
    try {
      const answer = await score(this.file, asking.signal, (part) => this.asking === asking && this.showSent(part));
      if (this.asking !== asking) return; // another picture has taken this one's place
      this.answer = answer;
      this.showAnswer();
    } catch (problem) {
      if (this.asking !== asking) return;
      this.showProblem(problem);
    }
    this.part(".working").hidden = true;
    this.root.removeAttribute("aria-busy");
    refresh();
    if (this.answer) say([this.inWords(), verdict()].filter(Boolean).join(" "));
  }

  showSent(part) {
    this.part(".doing").textContent = part < 1 ? `Sending it: ${Math.floor(100 * part)} %` : "Looking at it";
  }

  // The button that had the focus goes away: keep the keyboard where it was.
  askAgain() {
    this.root.focus({ preventScroll: true });
    this.ask();
  }

  inWords() {
    return `${this.file.name}: complexity ${this.answer.score.toFixed(2)} of 1. ${this.part(".percentile").textContent}`;
  }

  showAnswer() {
    const { score, percentile, image, model, timings, heatmap } = this.answer;
    const map = this.part(".map");
    map.src = `data:${heatmap.media_type};base64,${heatmap.data}`;
    map.hidden = false;
    this.root.classList.add("mapped");
    this.part(".heatmap").hidden = false;
    this.part(".picture").alt = this.file.name;
    map.alt = "Heatmap: the brighter, the more complex";
    this.part(".score strong").textContent = score.toFixed(2);
    this.part(".bar div").style.setProperty("--at", `${100 * score}%`);
    this.part(".percentile").textContent = `More complex than ${percentile.toFixed(0)} % of the model's reference pictures.`;
    const facts = {
      "Size": `${image.width} × ${image.height}, ${image.format}`,
      "Score": score.toFixed(6),
      "Model": `${model.name} ${model.version}`,
      "Time": `${(1000 * timings.total_s).toFixed(0)} ms, of which ${(1000 * timings.inference_s).toFixed(0)} in the model`,
    };
    if (image.frames > 1) facts["Frames"] = `${image.frames}, of which the first is scored`;
    this.part("dl").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
    this.part(".result").hidden = false;
    find("#model").textContent = `Model ${model.name}, version ${model.version}.`;
  }

  showProblem({ title, detail, again, key }) {
    this.part(".problem .title").textContent = title;
    this.part(".problem .detail").textContent = detail;
    this.part(".again").hidden = !again;
    this.part(".problem").hidden = false;
    this.root.classList.add("failed");
    if (key) askForKey();
    else if (document.activeElement === this.root) this.part(".again").focus();
  }
}

const panels = [];
let taken = 0; // how often something was given to the page

function addPanel() {
  const panel = new Panel(LETTERS.find((letter) => !panels.some((each) => each.letter === letter)));
  panels.push(panel);
  find("#panels").append(panel.root);
  for (const each of panels) each.part(".remove").hidden = panels.length === 1;
  setOpacity(panels[0].part(".heatmap input").value);
  refresh();
  return panel;
}

function removePanel(panel) {
  panel.asking?.abort();
  panel.asking = null;
  panels.splice(panels.indexOf(panel), 1);
  panel.root.remove();
  for (const each of panels) each.part(".remove").hidden = true;
  refresh();
  (panels[0].file ? find("#second") : panels[0].input).focus();
}

// Where a picture goes that was given to no panel in particular.
const nextPanel = () => panels.find((panel) => !panel.file) ?? panels.at(-1);

function take(files, panel = nextPanel(), origin = {}) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
  if (!pictures.length) {
    tell(files.length === 1 ? "That is no picture." : "None of these is a picture.");
    return;
  }
  panel.show(pictures[0], origin);
  if (pictures.length > 1) (panels.find((each) => each !== panel) ?? addPanel()).show(pictures[1], origin);
  if (pictures.length > 2) tell(`These are the first two of ${pictures.length} pictures: more do not fit.`);
}

async function takeSample(button, panel) {
  const turn = (taken += 1);
  const url = `static/samples/${button.dataset.sample}`;
  try {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(String(answer.status));
    const file = new File([await answer.blob()], button.dataset.sample, { type: "image/webp" });
    if (turn === taken) (panel ?? nextPanel()).show(file, { url }); // else something else was wanted meanwhile
  } catch {
    if (turn === taken) tell("The sample cannot be loaded: the service cannot be reached.");
  }
}

// What depends on all panels together.
function refresh() {
  find("#second").hidden = panels.length === LETTERS.length || !panels[0].file;
  const shown = panels.filter((panel) => panel.file);
  find("#same").hidden = !shown.length;
  find("#own-key").hidden = !hasKey();
  find("#unsaved").hidden = !shown.some(({ origin }) => origin.pasted);
  const pictures = shown.map(({ file, origin }) => ({ name: file.name, url: origin.url }));
  find("#curl").textContent = shown.length ? commands(pictures, document.baseURI, hasKey()) : "";
  find("#verdict").textContent = verdict();
  find("#verdict").hidden = !verdict();
}

// Which of two is the more complex; "" if there are no two answers.
function verdict() {
  if (panels.length < 2 || !panels.every((panel) => panel.answer)) return "";
  const [less, more] = [...panels].sort((a, b) => a.answer.score - b.answer.score);
  const by = more.answer.score - less.answer.score;
  const [high, low] = [more.answer.score.toFixed(2), less.answer.score.toFixed(2)];
  if (by < NOISE) return `Both are about equally complex: ${high} and ${low}.`;
  return `${more.letter} is the more complex: ${high} against ${low}, ${by.toFixed(2)} more.`;
}

// One for all panels, so that what is compared looks alike.
function setOpacity(percent) {
  document.documentElement.style.setProperty("--opacity", percent / 100);
  for (const panel of panels) {
    panel.part(".heatmap input").value = percent;
    panel.part(".heatmap input").setAttribute("aria-valuetext", `${percent} %`);
    panel.part(".heatmap .percent").textContent = `${percent} %`;
  }
}

function askForKey() {
  find("#key-form").hidden = false;
  find("#key").focus();
}

// Read aloud, for those who do not see what has changed.
const say = (text) => { find("#said").textContent = text; };

// Seen as well, until the next picture is shown.
function tell(text) {
  find("#told").textContent = text;
  find("#told").hidden = false;
  say(text);
}

function make(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

find("#key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(find("#key").value.trim());
  find("#key").value = "";
  find("#key-form").hidden = true;
  for (const panel of panels) if (panel.file && !panel.answer) panel.askAgain();
});

find("#second").addEventListener("click", () => addPanel().input.focus());

const samples = [...document.querySelectorAll("[data-sample]")];
for (const button of samples) button.addEventListener("click", () => takeSample(button));

find("#copy").addEventListener("click", async () => {
  const code = find("#curl");
  try {
    await navigator.clipboard.writeText(code.textContent);
    say("Copied.");
    find("#copy").textContent = "Copied";
    setTimeout(() => { find("#copy").textContent = "Copy"; }, 2000);
  } catch { // over plain HTTP from elsewhere browsers allow no clipboard: select it, to be copied by hand
    getSelection().selectAllChildren(code);
    say("Selected: copy it with your keyboard.");
  }
});

document.addEventListener("paste", (event) => {
  const { files } = event.clipboardData;
  if (files.length) take(files, nextPanel(), { pasted: true });
  else if (event.target !== find("#key")) tell("What was pasted is no picture.");
});

// Dropped anywhere, else the browser would leave the page for the picture.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const panel = panels.find((each) => each.root.contains(event.target));
  const { files } = event.dataTransfer;
  const address = event.dataTransfer.getData("text/uri-list");
  const sample = samples.find((button) => find("img", button).src === address);
  if (files.length) take(files, panel);
  else if (sample) takeSample(sample, panel);
  else tell("Only files can be dropped here. Save the picture first, or copy it and paste it.");
});

addPanel();
