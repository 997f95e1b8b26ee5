"use strict";
// The page of metake playground. Every answer of the server is JSON; an error is {"error": one line}.

const $ = (id) => document.getElementById(id);
const FACT = ["prompt", "subject", "target"], BOXES = ["own", "rephrasings", "neighbors"];
const KINDS = { edit: "edit", own: "own", rephrasing: "rephrasing", neighbor: "neighbor" };
const LOADING = { preview: "Preview", edit: "Edit", compare: "Reading answers", undo: "Undo", export: "Export" };
let state = { revision: 0, edits: [], methods: [] };

function node(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function cell(label, content, properties = {}) {
  const made = node("td", properties, content);
  made.dataset.label = label;
  return made;
}

function message(text, bad = false) {
  $("message").textContent = text;
  $("message").className = bad ? "bad" : "";
  $("message").hidden = !text;
}

async function ask(name, body) {
  const response = await fetch(`/api/${name}`, body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (response.ok && response.headers.get("Content-Type") === "application/zip") return response;
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

// one step at a time; the line below counts seconds and the steps of other windows
let running = false;
async function run(name, work) {
  if (running) return;
  running = true;
  const buttons = [...document.querySelectorAll("#edit button")];
  buttons.forEach((button) => { button.disabled = true; });
  const began = Date.now();
  const show = async () => {
    const seconds = Math.round((Date.now() - began) / 1000);
    const queue = seconds < 2 ? { waiting: 1 } : await ask("queue").catch(() => ({ waiting: 1 }));
    if (running) message(`${LOADING[name]} … ${seconds} s${queue.waiting > 1 ? `, ${queue.waiting - 1} more in the queue` : ""}`);
  };
  show();
  const timer = setInterval(show, 1000);
  let error = "";
  try {
    await work();
  } catch (failure) {
    error = failure instanceof TypeError ? "the server does not answer; is metake playground still running?" : failure.message;
  }
  running = false;
  clearInterval(timer);
  message(error, Boolean(error));
  buttons.forEach((button) => { button.disabled = false; });
  if (error) await ask("state").then(showEdits).catch(() => {});
  else showEdits(state);
}

const values = (names) => Object.fromEntries(names.map((name) => [name, $(name).value]));

function chosen() {
  return {
    ...values(FACT),
    method: $("method").value,
    calibrate: $("settings").value === "measured",
    strength: $("own-strength").checked && !$("own-strength").disabled ? Number($("strength").value) : null,
    revision: state.revision,
  };
}

function picture(text, alt) {
  const bytes = new TextEncoder().encode(text);
  let binary = "";
  bytes.forEach((byte) => { binary += String.fromCharCode(byte); });
  return node("img", { src: `data:image/svg+xml;base64,${btoa(binary)}`, alt });
}

function table(head, rows, kind) {
  return node("table", { className: kind },
    node("thead", {}, node("tr", {}, ...head.map((text) => node("th", { textContent: text, scope: "col" })))),
    node("tbody", {}, ...rows));
}

// on a narrow screen the result is below the button that was pressed
function bringIntoView(id) {
  if (matchMedia("(max-width: 60rem)").matches) $(id).closest(".card").scrollIntoView({ block: "start" });
}

function showPreview(plan) {
  const parts = [];
  if (plan.figure) {
    const described = plan.rows.map((row) => `layer ${row.layer}: eta ${row.eta.toFixed(2)}`).join(", ");
    parts.push(picture(plan.figure, `Predicted attenuation. ${described}; all layers together ${plan.predicted.toFixed(2)}.`));
    parts.push(node("div", { className: "scroll", tabIndex: 0 }, table(["layer", "η", "ρ", "cosine of the key"], plan.rows.map((row) => node("tr", {},
      node("th", { textContent: row.layer, scope: "row" }),
      ...[row.eta.toFixed(3), row.rho.toPrecision(3), row.cosine.toFixed(2)].map((text) => node("td", { textContent: text })))), "numbers")));
  }
  const lines = [...plan.notes, ...plan.reasons];
  parts.push(node("ul", { className: "notes" }, ...lines.map((line) => node("li", { textContent: line }))));
  parts.push(node("dl", { className: "settings" }, ...Object.entries({ method: plan.method, layers: plan.layers.join(", "), ...plan.settings })
    .flatMap(([name, value]) => [node("dt", { textContent: name }), node("dd", { textContent: value })])));
  $("preview-out").replaceChildren(...parts);
  bringIntoView("preview-out");
}

function verdict(row) {
  if (row.success === null) return row.before === row.after ? ["unchanged", ""] : ["changed", ""];
  if (row.kind === "neighbor") return row.success ? ["unchanged", "good"] : ["changed", "bad"];
  return row.success ? ["the new target", "good"] : ["not the target", "bad"];
}

function showAnswers(found) {
  const rows = found.rows.map((row) => {
    const [text, color] = verdict(row);
    return node("tr", {}, node("th", { scope: "row" }, node("span", { className: "soft", textContent: `${KINDS[row.kind]}: ` }), row.prompt),
      cell("before", row.before), cell("after", row.after), cell("verdict", text, { className: color }));
  });
  const count = found.edits === 1 ? "1 edit" : `${found.edits} edits`;
  $("answers-out").replaceChildren(
    node("p", { className: "soft small", textContent: `Before: without any edit. After: with ${count}.` }),
    table(["prompt", "before", "after", "verdict"], rows, "stack"));
  bringIntoView("answers-out");
}

function showEdits(content) {
  state = { ...state, ...content };
  const { edits } = state;
  const rows = edits.map((edit, i) => node("tr", {},
    node("th", { scope: "row" }, `${i + 1}. ${edit.prompt} → ${edit.target}`),
    cell("method", edit.method), cell("before", edit.before), cell("after", edit.after),
    cell("realized", edit.realized === null ? "–" : edit.realized.toFixed(2)),
    cell("verdict", edit.success ? "begins with the target" : ["does not begin with the target", ...edit.reasons].join("; "),
      { className: edit.success ? "good" : "bad" })));
  $("edits-out").replaceChildren(edits.length
    ? table(["edit", "method", "before", "after", "realized", "verdict"], rows, "stack")
    : node("p", { className: "soft", textContent: "None. The weights are those of the loaded model." }));
  for (const id of ["undo", "undo-all", "export"]) $(id).disabled = running || !edits.length;
  if (state.model) {
    const preset = state.preset ? `preset ${state.preset}` : "no preset: settings are calibrated on the first edit";
    $("model").textContent = `${state.model}, ${state.layers} layers, ${preset}; ${edits.length === 1 ? "1 edit" : `${edits.length} edits`}`;
  }
}

const readAnswers = async () => showAnswers(await ask("compare", values([...FACT, ...BOXES])));

function showMethod() {
  const method = state.methods.find((each) => each.name === $("method").value);
  $("summary").textContent = `${method.summary} (${method.source})`;
  $("own-strength").disabled = !method.has_strength;
  $("strength").disabled = !method.has_strength || !$("own-strength").checked;
  $("strength-value").textContent = $("strength").disabled
    ? (method.has_strength ? "as in the settings" : "this method has no constraint") : Number($("strength").value).toFixed(2);
}

function fill(example) {
  for (const name of FACT) $(name).value = example[name];
  for (const name of BOXES) $(name).value = example[name].join("\n");
}

async function download() {
  const response = await ask("export", { form: $("form").value });
  const name = /filename="?([^"]+)"?/.exec(response.headers.get("Content-Disposition"))[1];
  const url = URL.createObjectURL(await response.blob());
  node("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// -- theory ---------------------------------------------------------------------------------------

const SLIDERS = { // name: [label, lowest, highest, step, start, logarithmic]
  lam: ["λ", -2, 8, 0.1, 3.5, true],
  norm: ["norm of the key", -1, 2, 0.05, 0.5, true],
  angle: ["angle of the key to the protected half (°)", 0, 90, 1, 30, false],
  condition: ["condition number κ of C", 0, 8, 0.1, 4, true],
  between: ["angle between the keys (°)", 0, 90, 1, 30, false],
  residuals: ["angle between the residuals (°)", 0, 180, 1, 90, false],
  theta: ["progress θ", -3, 0, 0.05, -1, true],
  ratio: ["hard / easy gradient b/a", -3, 3, 0.1, 0, true],
  penalty: ["shared penalty", -2, 6, 0.1, 1, true],
  key_drift: ["drift of the key, relative", -4, 0, 0.1, -3, true],
};
const SHARED = ["lam", "norm", "angle", "condition"];
const short = (x) => (x !== 0 && (Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3) ? x.toExponential(1) : String(Number(x.toPrecision(4))));
const sliderValue = (name) => { const x = Number($(`s-${name}`).value); return SLIDERS[name][5] ? Math.min(Math.max(10 ** x, 10 ** SLIDERS[name][1]), 10 ** SLIDERS[name][2]) : x; };

const wanted = new Set(), RELATION = { equal: "=", below: "≤", above: "≥" };
let drawing = false;
async function draw() {
  if (drawing) return;
  drawing = true;
  while (wanted.size) {
    const part = wanted.values().next().value;
    wanted.delete(part);
    try {
      showPart(await ask("theory", { part, ...Object.fromEntries(Object.keys(SLIDERS).map((name) => [name, sliderValue(name)])) }));
    } catch (failure) {
      message(failure.message, true);
    }
  }
  drawing = false;
}

function showPart(found) {
  const rows = found.lines.map((line) => node("tr", {}, node("th", { scope: "row", textContent: line.label }),
    cell("library", short(line.library)), cell("theory", `${RELATION[line.relation]} ${short(line.theory)}`),
    cell("verdict", line.verdict, { className: line.holds ? "good" : "bad" })));
  document.querySelector(`[data-part="${found.part}"] [data-out]`).replaceChildren(
    picture(found.figure, found.alt), table(["compared", "library", "theory", "verdict"], rows, "stack"));
}

function slider(name) {
  const [label, min, max, step, value] = SLIDERS[name];
  const input = node("input", { type: "range", id: `s-${name}`, min, max, step });
  input.value = value;
  const output = node("output");
  output.htmlFor = input.id;
  const show = () => { output.textContent = short(sliderValue(name)); };
  input.addEventListener("input", () => {
    show();
    const own = input.closest("[data-part]").dataset.part;
    wanted.add(own);
    if (SHARED.includes(name)) for (const part of document.querySelectorAll("[data-part]")) wanted.add(part.dataset.part);
    draw();
  });
  queueMicrotask(show);
  return node("label", {}, label, " ", output, input);
}

function select(tab) {
  for (const each of document.querySelectorAll("[role=tab]")) {
    const on = each.id === `tab-${tab}`;
    each.setAttribute("aria-selected", String(on));
    $(each.getAttribute("aria-controls")).hidden = !on;
  }
  if (tab === "theory" && !document.querySelector("[data-out] img")) {
    for (const part of document.querySelectorAll("[data-part]")) wanted.add(part.dataset.part);
    draw();
  }
  history.replaceState(null, "", `#${tab}`);
}

async function start() {
  for (const tab of document.querySelectorAll("[role=tab]")) tab.addEventListener("click", () => select(tab.id.replace("tab-", "")));
  for (const place of document.querySelectorAll("[data-sliders]")) place.append(...place.dataset.sliders.split(" ").map(slider));
  showEdits(await ask("state"));
  $("example").append(...state.examples.map((example, i) => node("option", { value: i, textContent: `${example.prompt} → ${example.target}` })));
  $("method").append(...state.methods.map((method) => node("option", { value: method.name, textContent: method.name })));
  $("method").value = "metake";
  $("settings").append(...(state.preset ? [["preset", `preset ${state.preset}`]] : []).concat([["measured", "calibrated on the first edit"]])
    .map(([value, textContent]) => node("option", { value, textContent })));
  $("form").append(...Object.entries(state.forms).map(([name, title]) => node("option", { value: name, textContent: `${name}: ${title}` })));
  fill(state.examples[0]);
  showMethod();
  $("example").addEventListener("change", () => fill(state.examples[Number($("example").value)]));
  for (const id of ["method", "own-strength", "strength"]) $(id).addEventListener("input", showMethod);
  $("fact").addEventListener("submit", (event) => {
    event.preventDefault();
    run("preview", async () => showPreview(await ask("preview", chosen())));
  });
  $("edit-model").addEventListener("click", () => run("edit", async () => {
    showEdits(await ask("edit", chosen()));
    await readAnswers();
  }));
  $("prompts").addEventListener("submit", (event) => { event.preventDefault(); run("compare", readAnswers); });
  for (const all of [false, true]) {
    $(all ? "undo-all" : "undo").addEventListener("click", () => run("undo", async () => {
      showEdits(await ask("undo", { revision: state.revision, all }));
      await readAnswers();
    }));
  }
  $("export").addEventListener("click", () => run("export", download));
  select(location.hash === "#theory" ? "theory" : "edit");
  document.body.dataset.ready = "yes";
}

start().catch((failure) => message(failure.message, true));
