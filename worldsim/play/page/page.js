// The page asks for a step, shows it, and asks for the next one no sooner than the world's own pace.
"use strict";

const VERSION = 1;
const el = (id) => document.getElementById(id);
const token = location.hash.slice(1);

let socket = null;
let world = null; // what the server told of the world
let now = null; // header of the newest frame
let running = false;
let waiting = null; // what was sent and is not yet answered
let next = null; // what goes out as soon as an answer came; a newer wish replaces an older one
let timer = 0;
let aim = null; // the step that a rewind on its way leads to
let retry = 0;
const held = []; // keys down, newest last
const latencies = [];

// --- Talking to the server ------------------------------------------------------------------------

function connect() {
  const session = sessionStorage.getItem("session") || "";
  const query = new URLSearchParams({ token, session });
  socket = new WebSocket(`ws://${location.host}/play?${query}`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { retry = 0; waiting = "hello"; };
  socket.onmessage = (event) => {
    if (typeof event.data === "string") told(JSON.parse(event.data));
    else shown(event.data);
  };
  socket.onclose = (event) => {
    waiting = null; // a wish that was not sent yet goes out once the connection is back
    if (event.code === 4001) return closed("opened in another tab; reload to begin anew", true);
    if (event.code === 1013) return closed(event.reason, true);
    if (retry >= 20) return closed("the server is gone: worldsim play WORLD", true);
    closed("connection lost, trying again", false);
    setTimeout(connect, Math.min(200 * 2 ** retry++, 3000));
  };
}

function closed(text, forGood) {
  status(text, true);
  if (forGood) { sessionStorage.removeItem("session"); running = false; drawButtons(); }
}

function send(message) {
  if (waiting || !socket || socket.readyState !== WebSocket.OPEN) { next = message; return; }
  waiting = message.type;
  socket.send(JSON.stringify({ v: VERSION, time: performance.now(), ...message }));
}

function answered() {
  waiting = null;
  if (next) { const message = next; next = null; send(message); } else aim = null;
}

function told(message) {
  if (message.type === "world") return begin(message);
  if (message.type === "error") { note(message.text, true); running = false; drawButtons(); }
  if (message.type === "saved") note(`saved ${message.path}`);
  answered();
  if (running) schedule();
}

async function shown(data) {
  const length = new DataView(data).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const end = data.byteLength - header.real;
  const [picture, real] = await Promise.all([bitmap(data.slice(4 + length, end)), header.real ? bitmap(data.slice(end)) : null]);
  const first = now === null;
  now = header;
  if (waiting === "step") measure(performance.now() - header.time);
  for (const part of [el("real-figure"), ...document.querySelectorAll(".real")]) part.hidden = !real;
  drawChunk(picture, real, waiting === "step");
  drawGauges();
  if (first) el("seed").value = header.seed;
  answered();
  Object.assign(document.body.dataset, { seed: header.seed, step: header.step });
  if (running && header.over) {
    running = false;
    note(header.terminated ? "the episode ended: rewind or reset" : `the episode was cut: ${header.reason || "time limit"}; rewind or reset`);
    drawButtons();
  }
  if (running) schedule();
}

const bitmap = (bytes) => createImageBitmap(new Blob([bytes], { type: "image/png" }));

// --- The pace -------------------------------------------------------------------------------------

let due = 0;
let fresh = false; // whether a key was pressed that no step has heard of yet

// A press is answered at once, one step ahead of the pace and no more than one.
function schedule() {
  clearTimeout(timer);
  if (el("wait").checked && !held.length && usesKeys() && !el("hand").checked) return;
  const pause = due - performance.now();
  timer = setTimeout(step, fresh && pause < 1000 / world.rate ? 0 : Math.max(0, pause));
}

function touched() {
  fresh = true;
  if (running && !waiting) schedule();
}

function step() {
  if (!world || (now && now.over)) return;
  fresh = false;
  due = Math.max(performance.now(), due) + 1000 / world.rate;
  send({ type: "step", keys: usesKeys() ? held.slice(-8) : [], action: usesKeys() ? null : sliders(), driver: el("hand").checked ? "policy" : "keys" });
}

function play(on) {
  running = on;
  note("");
  drawButtons();
  if (!on) return clearTimeout(timer);
  due = performance.now();
  if (!waiting) schedule();
}

function goTo(stepNumber) {
  if (!now) return;
  if (running) play(false);
  aim = Math.max(stepNumber, now.first);
  send({ type: "rewind", step: aim });
}

const goBack = () => goTo((aim ?? now?.step) - 1);

function choose() {
  if (!el("policy").value) el("hand").checked = false;
  el("hand-label").hidden = !el("policy").value;
  send({ type: "choose", policy: el("policy").value });
}

function handOver(on) {
  if (on && !el("policy").value) { el("policy").value = world.policies[0]; choose(); }
  el("hand").checked = on;
  el("dream").focus({ preventScroll: true });
}

function reset(pixels = "") {
  note("");
  const seed = Math.min(Math.max(0, Math.trunc(Number(el("seed").value)) || 0), Number.MAX_SAFE_INTEGER);
  el("seed").value = seed;
  send({ type: "reset", seed, pixels, real: el("real-on").checked && !pixels });
}

// --- Keys and fingers -----------------------------------------------------------------------------

const usesKeys = () => world.keys.length > 0 || world.action.kind === "none";
const ARROWS = { ArrowUp: "w", ArrowDown: "s", ArrowLeft: "a", ArrowRight: "d" };

function keyOf(event) {
  const code = event.code;
  const name = ARROWS[code]
    || (code.startsWith("Key") && code[3].toLowerCase())
    || ((code.startsWith("Digit") || code.startsWith("Numpad")) && code.slice(-1))
    || (code === "Space" && " ");
  return world && world.keys.some((key) => key.key === name) ? name : null;
}

function press(key) {
  if (held.includes(key)) return;
  held.push(key);
  drawPad();
  touched();
}

function release(key) {
  const place = held.indexOf(key);
  if (place >= 0) held.splice(place, 1);
  drawPad();
}

const typing = (target) => target instanceof HTMLInputElement && ["number", "text"].includes(target.type) || target instanceof HTMLSelectElement;

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || !world) return;
  const key = keyOf(event);
  if (key !== null) { press(key); event.preventDefault(); return; }
  if (event.repeat) return;
  if (event.code === "Space") play(!running);
  else if (event.code === "Period") { play(false); step(); }
  else if (event.code === "Comma") goBack();
  else if (event.code === "KeyR") reset();
  else if (event.code === "KeyH" && world.policies.length) handOver(!el("hand").checked);
  else return;
  event.preventDefault();
});
addEventListener("keyup", (event) => { const key = world && keyOf(event); if (key !== null && world) release(key); });
addEventListener("blur", () => { held.length = 0; if (world) drawPad(); });
document.addEventListener("visibilitychange", () => { if (document.hidden) play(false); });

function makePad() {
  const pad = el("pad");
  pad.replaceChildren();
  const names = world.keys.map((key) => key.key);
  const cross = names.length > 0 && names.every((name) => "wasd".includes(name));
  pad.classList.toggle("cross", cross);
  const places = { w: "1 / 2", a: "2 / 1", s: "2 / 2", d: "2 / 3" };
  for (const { key, label } of world.keys) {
    const button = document.createElement("button");
    const small = document.createElement("small");
    button.dataset.key = key;
    button.append(key === " " ? "space" : key.toUpperCase(), small);
    small.textContent = label;
    if (cross) button.style.gridArea = places[key];
    button.addEventListener("pointerdown", (event) => { button.setPointerCapture(event.pointerId); press(key); event.preventDefault(); });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(end, () => release(key));
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    pad.append(button);
  }
}

function makeSliders() {
  const { kind, low, high, nvec, n, start } = world.action;
  const axes = kind === "continuous" ? low.map((from, i) => [from, high[i], "any"])
    : kind === "discrete" ? [[start, start + n - 1, 1]] : nvec.map((count) => [0, count - 1, 1]);
  const box = el("sliders");
  box.hidden = usesKeys();
  box.replaceChildren();
  if (usesKeys()) return;
  axes.forEach(([from, to, by], i) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "range", min: from, max: to, step: by });
    const output = document.createElement("output");
    input.value = kind === "continuous" ? Math.min(Math.max(0, from), to) : from;
    const say = () => { output.value = Number(input.value).toFixed(kind === "continuous" ? 2 : 0); };
    input.addEventListener("input", () => { say(); touched(); });
    say();
    label.append(`action ${i + 1}`, input, output);
    box.append(label);
  });
}

const sliders = () => [...el("sliders").querySelectorAll("input")].map((input) => Number(input.value));

// --- Drawing --------------------------------------------------------------------------------------

function begin(message) {
  world = message;
  now = null;
  sessionStorage.setItem("session", world.session);
  el("name").textContent = document.title = world.name;
  const [height, width] = world.frame_shape;
  for (const canvas of [el("dream"), el("real")]) Object.assign(canvas, { width, height });
  document.documentElement.style.setProperty("--ratio", width / height);
  makePad();
  makeSliders();
  el("say").hidden = !world.text;
  el("policy-label").hidden = !world.policies.length;
  el("policy").replaceChildren(...["", ...world.policies].map((name) => new Option(name || "none", name)));
  el("policy").value = world.policy;
  el("hand-label").hidden = !world.policy;
  el("real-label").hidden = !world.real;
  status(`${world.rate.toFixed(world.rate % 1 ? 1 : 0)} steps a second, ${world.chunk} frame${world.chunk > 1 ? "s" : ""} each`);
  drawButtons();
}

let playing = 0;
let shownPictures = []; // freed when the next ones come: the browser is slow to notice them

function drawChunk(picture, real, moving) {
  const [height, width] = world.frame_shape;
  const count = world.chunk;
  const draw = (id, source, i) => el(id).getContext("2d").drawImage(source, 0, i * height, width, height, 0, 0, width, height);
  const show = (i) => { draw("dream", picture, i); if (real) draw("real", real, i); };
  const mine = ++playing;
  shownPictures.forEach((old) => old.close());
  shownPictures = real ? [picture, real] : [picture];
  if (!moving || !running || count === 1) return show(count - 1);
  for (let i = 0; i < count; i++) setTimeout(() => { if (mine === playing) show(i); }, i * 1000 / (world.rate * count));
}

// What the chosen policy would do next: the keys nearest to it, and its numbers.
function drawAdvice() {
  const { advice } = now;
  for (const button of el("pad").children) button.classList.toggle("next", Boolean(advice) && advice.keys.includes(button.dataset.key));
  [...el("sliders").children].forEach((label, i) => {
    label.classList.toggle("next", Boolean(advice));
    label.title = advice ? `next: ${advice.action[i]}` : "";
  });
  el("advice").hidden = !advice;
  if (advice) el("advice").textContent = `${el("hand").checked ? "does" : "would do"} next: ${advice.action.map((value) => Number(value.toFixed(2))).join(", ")}`;
}

function drawGauges() {
  drawAdvice();
  gauge("trust", now.trust);
  gauge("goes-on", now.continue_prob);
  const share = Math.tanh(now.reward) * 50;
  const beam = el("beam");
  beam.style.left = `${Math.min(50, 50 + share)}%`;
  beam.style.width = `${Math.abs(share)}%`;
  beam.classList.toggle("minus", share < 0);
  el("reward-text").value = now.step ? signed(now.reward) : "–";
  el("total").value = signed(now.total);
  el("real-total").value = signed(now.real_total);
  el("step").value = `${now.step} of ${world.time_limit}`;
  Object.assign(el("moment"), { min: now.first, max: now.last });
  el("moment").value = now.step;
}

function gauge(id, value) {
  el(id).value = value ?? 0;
  el(`${id}-text`).value = value === null ? "unknown" : value.toFixed(2);
}

const signed = (value) => `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(2)}`;

function measure(milliseconds) {
  latencies.push(milliseconds);
  if (latencies.length > 50) latencies.shift();
  const sorted = [...latencies].sort((a, b) => a - b);
  el("latency").value = `${sorted[sorted.length >> 1].toFixed(0)} ms`;
}

function drawPad() {
  for (const button of el("pad").children) button.classList.toggle("held", held.includes(button.dataset.key));
}

function drawButtons() {
  el("run").textContent = running ? "pause" : "play";
}

function note(text, bad = false) {
  el("note").textContent = text;
  el("note").classList.toggle("bad", bad);
}

function status(text, bad = false) {
  el("status").textContent = text;
  el("status").classList.toggle("bad", bad);
}

// --- Buttons --------------------------------------------------------------------------------------

el("run").onclick = () => { play(!running); el("dream").focus({ preventScroll: true }); };
el("one").onclick = () => { play(false); step(); };
el("back").onclick = goBack;
el("reset").onclick = () => reset();
el("dice").onclick = () => { el("seed").value = Math.floor(Math.random() * 10000); reset(); };
el("moment").oninput = () => goTo(Number(el("moment").value));
el("num-steps").onchange = () => send({ type: "sample", num_steps: Number(el("num-steps").value) || null });
el("real-on").onchange = () => { play(false); reset(); };
el("policy").onchange = choose;
el("say").onsubmit = (event) => { event.preventDefault(); send({ type: "say", text: el("words").value.trim() }); el("dream").focus({ preventScroll: true }); };
el("hand").onchange = () => handOver(el("hand").checked);
el("film").onclick = () => { play(false); send({ type: "save", what: "film" }); };
el("data").onclick = () => { play(false); send({ type: "save", what: "data" }); };
el("picture").onchange = async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  try {
    play(false);
    const frames = file.type.startsWith("video/") ? await framesOf(file) : [await createImageBitmap(file)];
    reset(pixelsOf(frames));
  } catch (error) {
    note(`neither a picture nor a film that this browser reads: ${error.message || file.name}`, true);
  }
};

// The middle of each picture, cut to the world's shape: base64 of (n, H, W, 3) bytes.
function pixelsOf(pictures) {
  const [height, width] = world.frame_shape;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  let text = "";
  for (const picture of pictures) {
    const scale = Math.max(width / picture.width, height / picture.height);
    context.drawImage(picture, (width - picture.width * scale) / 2, (height - picture.height * scale) / 2, picture.width * scale, picture.height * scale);
    const rgba = context.getImageData(0, 0, width, height).data;
    for (let i = 0; i < rgba.length; i += 4) text += String.fromCharCode(rgba[i], rgba[i + 1], rgba[i + 2]);
    picture.close();
  }
  return btoa(text);
}

// The last frames of a film, at the world's rate: whole chunks, as many as the world looks back.
async function framesOf(file) {
  const film = Object.assign(document.createElement("video"), { muted: true, preload: "auto", src: URL.createObjectURL(file) });
  const happened = (name) => new Promise((resolve, reject) => { film.addEventListener(name, resolve, { once: true }); film.addEventListener("error", () => reject(new Error(film.error?.message)), { once: true }); });
  try {
    await happened("loadeddata");
    const chunks = Math.min(world.context, Math.floor(film.duration * world.fps / world.chunk));
    const count = Math.max(1, chunks * world.chunk);
    const frames = [];
    for (let i = count; i > 0; i--) {
      const sought = happened("seeked");
      film.currentTime = Math.max(0, film.duration - (i - 0.5) / world.fps);
      await sought;
      frames.push(await createImageBitmap(film));
    }
    return frames;
  } finally {
    URL.revokeObjectURL(film.src);
  }
}

if (token) connect();
else status("open the address that worldsim play printed: it holds the key", true);
