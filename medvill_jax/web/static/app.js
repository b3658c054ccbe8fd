// A film is opened, the models are asked about it, and what is pointed at lights up in it.
import { light, show } from "/film.js";

const HINT = "Point at a finding or a word, or move to it with Tab and the arrow keys.";
const PAUSE = 200; // milliseconds that a pointer must rest before a map is asked for
const byId = (id) => document.getElementById(id);
const about = await (await fetch("/api/about")).json();
let film = null; // its name on the server
let maps = new Map(); // what was explained -> how much of it is done, whom to tell, and the promise of the answer
let leaving = new AbortController(); // of the maps of this film
let turns = {}; // task -> the newest question of this film
let lit = null; // the button that is pointed at
let pinned = null; // the button whose map stays
let timer = 0;

/** Makes an element; children are elements or texts. */
function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: is it still running?");
  }
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

async function ask(task, options = {}) {
  const body = JSON.stringify(options);
  return (await call(`/api/films/${film}/${task}`, { method: "POST", body })).json();
}

/** Asks for a map; `tell` is called with every line before the last one, which says how much is done. */
async function askForMap(options, tell) {
  const headers = { Accept: "application/x-ndjson" };
  const request = { method: "POST", headers, body: JSON.stringify(options), signal: leaving.signal };
  const response = await call(`/api/films/${film}/explain`, request);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let [text, given] = ["", null];
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (text + part.value).split("\n");
    text = lines.pop();
    for (const line of lines) {
      given = JSON.parse(line);
      if (given.error) throw new Error(given.error);
      if (given.of) tell(given);
    }
  }
  if (!given?.map) throw new Error("The server has broken off: is it still running?");
  return given;
}

function trouble(words) {
  byId("trouble").textContent = words;
  byId("trouble").hidden = words === "";
}

/** Opens a film, a Blob; `drawn` is what a drawn one shows, in words. */
async function open(blob, drawn = "") {
  trouble("");
  if (blob.size > about.film_bytes) {
    trouble(`This file has ${blob.size.toLocaleString()} bytes; at most ${about.film_bytes.toLocaleString()} are taken.`);
    return;
  }
  let kept;
  try {
    kept = await (await call("/api/films", { method: "POST", body: blob })).json();
    if (film !== null) call(`/api/films/${film}`, { method: "DELETE" }).catch(() => {});
    film = kept.film;
    await show(await (await call(`/api/films/${film}/picture`)).blob());
  } catch (error) {
    trouble(`This film cannot be opened: ${error.message}`);
    return;
  }
  leaving.abort(); // maps that nobody will see need not be made
  leaving = new AbortController();
  maps = new Map();
  release();
  byId("viewer").hidden = byId("bar").hidden = byId("answers").hidden = false;
  byId("warnings").replaceChildren(...kept.warnings.map((words) => make("li", {}, words)));
  byId("warnings").hidden = kept.warnings.length === 0;
  byId("drawn").hidden = drawn === "";
  byId("drawn").querySelector("p").textContent = drawn;
  turns = {};
  for (const task of about.tasks) byId(task).querySelector(".body").replaceChildren();
  byId("own").value = "";
  for (const task of ["report", "findings", "similar"]) if (about.tasks.includes(task) && !about.needed[task]) answer(task);
}

async function answer(task, options = {}) {
  const body = byId(task).querySelector(".body");
  const asked = (turns[task] = {}); // an answer that is late must not replace a newer one
  body.replaceChildren(make("p", { className: "hint" }, "The model is at work."));
  try {
    const given = await ask(task, options);
    if (asked === turns[task]) body.replaceChildren(...SHOWN[task](given, options));
  } catch (error) {
    if (asked === turns[task]) body.replaceChildren(make("p", {}, error.message));
  }
}

const SHOWN = {
  report(given) {
    if (!given.pieces.length) return [make("p", {}, given.text || "The model writes nothing.")];
    const words = make("p", { className: "words" });
    words.setAttribute("role", "group");
    words.setAttribute("aria-label", "The report, word by word");
    for (const [text, word] of given.pieces) {
      words.append(word === null ? text : pointed(text, { word, report: given.text }, `the word “${text}”`));
    }
    roving(words);
    return [words, ...warnings(given)];
  },
  findings(given, options) {
    const rows = given.findings.map((row) => {
      const verdict = row.positive ? "positive" : "below";
      const name = make("th", { scope: "row" }, pointed(row.name, { finding: row.name, ...options }, row.name), make("small", {}, row.means));
      const cells = [gauge(row), percent(row.probability), percent(row.threshold)];
      return make("tr", { className: row.positive ? "positive" : "" }, name,
        make("td", {}, cells[0]), ...cells.slice(1).map((text) => make("td", { className: "number" }, text)),
        make("td", { className: row.positive ? "yes" : "" }, verdict));
    });
    const heads = ["Finding", "", "Probability", "Threshold", "Called"].map((text) => (text ? make("th", { scope: "col" }, text) : make("td")));
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
    roving(table);
    return [table, ...[...given.means, about.maps].map((text) => make("p", { className: "means" }, text))];
  },
  ask(given, { question }) {
    const text = given.answer ?? `answer ${given.answer_id}`;
    const shown = pointed(text, { question }, `the answer “${text}”`);
    return [make("dl", {}, make("dt", {}, question), make("dd", {}, shown, make("small", {}, ` probability ${percent(given.probability)}`))), ...warnings(given)];
  },
  similar(given) {
    return [make("dl", {}, ...given.similar.flatMap(({ text, cosine }) => [make("dt", {}, `cosine ${cosine.toFixed(3)}`), make("dd", {}, text)]))];
  },
};

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const unknown = (words) => ![...byId("warnings").children].some((item) => item.textContent === words);
const warnings = (given) => given.warnings.filter(unknown).map((words) => make("p", { className: "means" }, words));

/** A probability as a bar with its threshold as a line; the numbers stand beside it. */
function gauge({ probability, threshold }) {
  const [bar, line] = [make("i"), make("b")];
  bar.style.width = `${100 * probability}%`;
  line.style.left = `${100 * threshold}%`;
  const box = make("div", { className: "gauge" }, bar, line);
  box.setAttribute("aria-hidden", "true");
  return box;
}

/** A button that lights up the film while it is pointed at or has the focus, and keeps it lit once it is pressed. */
function pointed(text, options, name) {
  const button = make("button", { type: "button" }, text);
  button.setAttribute("aria-pressed", "false");
  const start = () => { clearTimeout(timer); timer = setTimeout(() => explain(button, options, name), PAUSE); };
  button.addEventListener("pointerenter", start);
  button.addEventListener("focus", start);
  for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => leave(button));
  button.addEventListener("click", () => {
    const press = pinned !== button;
    pinned?.setAttribute("aria-pressed", "false");
    pinned = press ? button : null;
    button.setAttribute("aria-pressed", String(press));
    if (press) explain(button, options, name);
  });
  return button;
}

async function explain(button, options, name) {
  if (pinned !== null && pinned !== button) return;
  lit = button;
  const [key, asked] = [JSON.stringify(options), film];
  if (!maps.has(key)) {
    const made = { done: 0, of: 0, tell() {} };
    made.answer = askForMap(options, (step) => { Object.assign(made, step); made.tell(); });
    made.answer.catch(() => maps.delete(key)); // to be tried again
    maps.set(key, made);
  }
  const made = maps.get(key);
  const tell = () => { if (lit === button && asked === film) progress(made, name); };
  const wait = setTimeout(() => { light(null); made.tell = tell; tell(); }, 100);
  try {
    const given = await made.answer;
    clearTimeout(wait);
    if (lit !== button || asked !== film) return;
    byId("done").classList.remove("shown");
    light(given.map);
    byId("lit").textContent = [`Bright: what speaks for ${name}, by ${given.method}`, ...given.warnings.filter(unknown)].join("; ");
  } catch (error) {
    if (lit === button) { darken(); byId("lit").textContent = error.message; }
  } finally {
    clearTimeout(wait);
  }
}

/** Shows how much of a map is made. What is read aloud changes at its half alone. */
function progress({ done, of }, name) {
  const [bar, number] = byId("done").children;
  byId("done").classList.add("shown");
  if (of) bar.value = done / of;
  else bar.removeAttribute("value"); // it waits for its turn
  number.textContent = of ? `${Math.round(100 * done / of)} %` : "";
  const words = `Looking for what speaks for ${name}${of && 2 * done >= of ? ": half is done" : ""}.`;
  if (byId("lit").textContent !== words) byId("lit").textContent = words;
}

function leave(button) {
  clearTimeout(timer);
  if (lit === button && pinned !== button) darken();
}

/** Lets go of the map that stays. */
function release() {
  pinned?.setAttribute("aria-pressed", "false");
  pinned = null;
  darken();
}

function darken() {
  lit = null;
  light(null);
  byId("done").classList.remove("shown");
  byId("lit").textContent = HINT;
}

/** One stop of the Tab key for all buttons in a box; arrow keys, Home and End move between them. */
function roving(box) {
  const buttons = [...box.querySelectorAll("button")];
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  buttons.forEach((button, place) => { button.tabIndex = place ? -1 : 0; });
  box.addEventListener("keydown", (event) => {
    const place = buttons.indexOf(event.target);
    if (place < 0 || !(event.key in steps)) return;
    event.preventDefault();
    const next = buttons[Math.max(0, Math.min(buttons.length - 1, place + steps[event.key]))];
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
  });
}

byId("file").addEventListener("change", (event) => {
  if (event.target.files.length) open(event.target.files[0]);
  event.target.value = ""; // so that the same file can be opened again
});
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
document.addEventListener("dragleave", (event) => { if (event.relatedTarget === null) document.body.classList.remove("dropping"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") release(); });

byId("ask").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = byId("question").value.trim();
  if (question === "") return;
  release();
  answer("ask", { question });
});

byId("with").addEventListener("submit", (event) => {
  event.preventDefault();
  release();
  answer("findings", { report: byId("own").value });
});

about.tasks.forEach((task) => { byId(task).hidden = false; });
byId("question").maxLength = about.question_length;
byId("own").maxLength = about.report_length;
byId("with").hidden = !about.needed.findings;
byId("made").textContent = `medvill_jax ${about.version}; ${about.models.map((model) => `${model.name} model ${model.weights.slice(0, 12)}`).join(", ")}`;
byId("examples").hidden = about.examples.length === 0;
byId("examples").querySelector("ul").append(...about.examples.map((text, number) => {
  const picture = make("img", { src: `/api/examples/${number}`, alt: `Drawn film ${number + 1}` });
  const button = make("button", { type: "button" }, picture);
  button.addEventListener("click", async () => open(await (await call(picture.src)).blob(), text));
  return make("li", {}, button);
}));
document.body.dataset.ready = "true";
