// The page at /: pictures in, scores and heatmaps out, over the same API that everybody else uses.

const find = (selector, within = document) => within.querySelector(selector);
const LETTERS = ["A", "B"];
const KEY_NAME = "clicv2-api-key"; // in sessionStorage: gone with the tab

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
    opacity.addEventListener("input", () => setOpacity(opacity.value));
    find(".again", this.root).addEventListener("click", () => this.ask());
    find(".remove", this.root).addEventListener("click", () => removePanel(this));
    this.file = null;
    this.answer = null;
    this.asking = null;
  }

  part(selector) {
    return find(selector, this.root);
  }

  show(file) {
    this.file = file;
    this.root.classList.remove("empty");
    this.part(".choose").textContent = "Choose another";
    const picture = this.part(".picture");
    if (picture.src) URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(file);
    // What the browser cannot show either is only a name.
    picture.onerror = () => { this.part(".stack").hidden = true; };
    this.part(".stack").hidden = false;
    this.part("figcaption").textContent = file.name;
    this.part("figure").hidden = false;
    this.ask();
  }

  async ask() {
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    this.answer = null;
    for (const part of [".result", ".problem", ".map", ".heatmap"]) this.part(part).hidden = true;
    this.part(".working").hidden = false;
    this.root.setAttribute("aria-busy", "true");
    refresh();
    try {
      const answer = await score(this.file, asking.signal);
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
  }

  showAnswer() {
    const { score, percentile, image, model, timings, heatmap } = this.answer;
    const map = this.part(".map");
    map.src = `data:${heatmap.media_type};base64,${heatmap.data}`;
    map.hidden = false;
    this.part(".heatmap").hidden = false;
    this.part(".picture").alt = this.file.name;
    map.alt = "Heatmap: the brighter, the more complex";
    this.part(".score strong").textContent = score.toFixed(2);
    this.part(".bar div").style.setProperty("--at", `${100 * score}%`);
    const more = `More complex than ${percentile.toFixed(0)} % of the pictures that the model was compared with.`;
    this.part(".percentile").textContent = more;
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
    say(`${this.file.name}: complexity ${score.toFixed(2)} of 1. ${more}`);
  }

  showProblem({ title, detail, again }) {
    this.part(".problem .title").textContent = title;
    this.part(".problem .detail").textContent = detail;
    this.part(".again").hidden = !again;
    this.part(".problem").hidden = false;
  }
}

// The answer of POST /v1/complexity. Throws {title, detail, again}.
async function score(file, signal) {
  const headers = { "Content-Type": file.type || "application/octet-stream", ...authorization() };
  let response;
  try {
    response = await fetch("v1/complexity?heatmap=png", { method: "POST", body: file, headers, signal });
  } catch {
    throw { title: "The service cannot be reached", detail: "It may be restarting. Nothing was lost but this try.", again: true };
  }
  const document = await response.json().catch(() => ({}));
  if (response.ok) return document;
  if (response.status === 401) askForKey();
  const wait = response.headers.get("Retry-After");
  throw {
    title: document.title || `The service answered with ${response.status}`,
    detail: [document.detail, wait && `Try again in ${wait} s.`].filter(Boolean).join(" ") || "It said nothing more.",
    again: response.status >= 500 || [401, 408, 429].includes(response.status),
  };
}

const panels = [];

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
  find("#second").focus();
}

// Where a picture goes that was given to no panel in particular.
const nextPanel = () => panels.find((panel) => !panel.file) ?? panels.at(-1);

function take(files, panel = nextPanel()) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
  if (!pictures.length) {
    if (files.length) say("That is no picture.");
    return;
  }
  panel.show(pictures[0]);
  if (pictures.length > 1) (panels.find((each) => each !== panel) ?? addPanel()).show(pictures[1]);
}

// What depends on all panels together.
function refresh() {
  find("#second").hidden = panels.length === LETTERS.length || !panels[0].file;
  const shown = panels.findLast((panel) => panel.file);
  find("#same").hidden = !shown;
  if (shown) find("#curl").textContent = curl(shown.file.name);
  const verdict = find("#verdict");
  const answers = panels.map((panel) => panel.answer);
  verdict.hidden = answers.length < 2 || !answers.every(Boolean);
  if (!verdict.hidden) verdict.textContent = compare(...panels);
}

// One for all panels, so that what is compared looks alike.
function setOpacity(percent) {
  document.documentElement.style.setProperty("--opacity", percent / 100);
  for (const panel of panels) {
    panel.part(".heatmap input").value = percent;
    panel.part(".heatmap .percent").textContent = `${percent} %`;
  }
}

function compare(...two) {
  const [less, more] = [...two].sort((a, b) => a.answer.score - b.answer.score);
  const by = more.answer.score - less.answer.score;
  if (by < 0.005) return `Both are equally complex: ${more.answer.score.toFixed(2)}.`;
  const figures = `${more.answer.score.toFixed(2)} against ${less.answer.score.toFixed(2)}`;
  return `${more.letter} is the more complex: ${figures}, ${by.toFixed(2)} more.`;
}

function curl(name) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const key = sessionStorage.getItem(KEY_NAME) ? ' -H "Authorization: Bearer $KEY"' : "";
  // Commas and semicolons mean something to curl inside -F, quotes keep them from it.
  const file = `file=@"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
  return `curl${key} -F ${quoted(file)} ${quoted(new URL("v1/complexity?heatmap=png", document.baseURI).href)}`;
}

function authorization() {
  const key = sessionStorage.getItem(KEY_NAME);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function askForKey() {
  find("#key-form").hidden = false;
  find("#key").focus();
}

const say = (text) => { find("#said").textContent = text; };

function make(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

find("#key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY_NAME, find("#key").value.trim());
  find("#key").value = "";
  find("#key-form").hidden = true;
  for (const panel of panels) if (panel.file && !panel.answer) panel.ask();
});

find("#second").addEventListener("click", () => addPanel().input.focus());

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    try {
      const answer = await fetch(`static/samples/${button.dataset.sample}`);
      if (!answer.ok) throw new Error(String(answer.status));
      take([new File([await answer.blob()], button.dataset.sample, { type: "image/webp" })]);
    } catch {
      nextPanel().showProblem({ title: "The service cannot be reached", detail: "The sample could not be loaded.", again: false });
    }
  });
}

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
  if (event.target instanceof HTMLInputElement && event.target.type !== "file") return;
  if (event.clipboardData.files.length) take(event.clipboardData.files);
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
  take(event.dataTransfer.files, panel);
});

addPanel();
