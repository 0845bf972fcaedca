// The dialog in which a mask is painted over the content: white there, black elsewhere.
// What is painted is kept as a list of acts, so that undo needs no copies of the canvas.

import * as api from "./api.js";
import { $, complain, show, write } from "./dom.js";

const LONGEST = 2048; // of the canvas; a mask may have another size than its picture, but not another shape
const PAINT = "#f0147d"; // seen on nearly every photograph; the mask that is sent is white
const SHORTEST = 64; // so that rounding to pixels keeps the shape of a long, narrow picture

let acts = []; // {base: image} | {clear: true} | {fill: true} | {erase, dots: [[x, y, width], ...]}
let erase = false;
let limits = null;
let answer = null; // of the dialog that is open
let content = null;

/**
 * Let a mask be painted.
 * @param {{content: object, title: string, help: string, mask: string|null, limits: object}} asked
 * @returns {Promise<string|null|undefined>} id of the mask, null for the whole picture, undefined if nothing changes
 */
export async function paint(asked) {
  ({ content, limits } = asked);
  const scale = Math.max(Math.min(1, LONGEST / Math.max(content.width, content.height)),
    Math.min(1, SHORTEST / Math.min(content.width, content.height)));
  const canvas = $("brush-canvas");
  canvas.width = Math.round(content.width * scale);
  canvas.height = Math.round(content.height * scale);
  $("brush-ground").style.setProperty("--aspect", content.width / content.height);
  $("brush-image").src = api.thumbnail(content.id);
  write($("brush-title"), asked.title);
  write($("brush-help"), `${asked.help} By keyboard: arrows move the brush, the space bar paints; or upload a mask file.`);
  canvas.setAttribute("aria-label", asked.title);
  complain("error-brush", "");
  acts = asked.mask ? [{ base: await picture(api.thumbnail(asked.mask)) }] : [];
  setErase(false);
  redraw();
  $("brush").showModal();
  return new Promise((resolve) => { answer = resolve; });
}

const close = (value) => {
  answer?.(value);
  answer = null;
  $("brush").close();
};

function picture(url) {
  const image = new Image();
  image.src = url;
  return image.decode().then(() => image);
}

function setErase(now) {
  erase = now;
  $("brush-erase").setAttribute("aria-pressed", String(now));
}

/** White of a mask becomes paint, black becomes nothing. */
function asPaint(image, { width, height }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data[i + 3] = (pixels.data[i] * pixels.data[i + 3]) / 255;
  }
  context.putImageData(pixels, 0, 0);
  tint(context, PAINT);
  return canvas;
}

/** Give all that is painted one colour. */
function tint(context, colour) {
  context.globalCompositeOperation = "source-in";
  context.fillStyle = colour;
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
}

function perform(act, context) {
  const { width, height } = context.canvas;
  if (act.clear || act.base) context.clearRect(0, 0, width, height);
  if (act.base) context.drawImage((act.paint ??= asPaint(act.base, context.canvas)), 0, 0);
  if (act.fill) context.fillRect(0, 0, width, height);
  for (let i = 0; i < (act.dots?.length ?? 0); i++) segment(act, i, context);
}

function segment({ dots, erase: without }, index, context) {
  const [x, y, width] = dots[index];
  const [fromX, fromY] = dots[Math.max(0, index - 1)];
  context.globalCompositeOperation = without ? "destination-out" : "source-over";
  Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: width });
  context.beginPath();
  if (index === 0) {
    context.arc(x, y, width / 2, 0, 2 * Math.PI); // a line without length would paint nothing
    context.fill();
  } else {
    context.moveTo(fromX, fromY);
    context.lineTo(x, y);
    context.stroke();
  }
  context.globalCompositeOperation = "source-over";
}

function pen() {
  const context = $("brush-canvas").getContext("2d", { willReadFrequently: true });
  context.fillStyle = context.strokeStyle = PAINT;
  return context;
}

function redraw() {
  const context = pen();
  context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  for (const act of acts) perform(act, context);
  tell();
}

function add(act) {
  acts.push(act);
  perform(act, pen());
  tell();
}

/** Share of the picture that is painted, from 0 to 1, measured on a small copy. */
function share() {
  const small = Object.assign(document.createElement("canvas"), { width: 64, height: 64 }).getContext("2d");
  small.drawImage($("brush-canvas"), 0, 0, 64, 64);
  const { data } = small.getImageData(0, 0, 64, 64);
  let sum = 0;
  for (let i = 3; i < data.length; i += 4) sum += data[i];
  return sum / 255 / 64 / 64;
}

function tell() {
  write($("brush-said"), `${Math.round(100 * share())} % painted`);
  $("brush-undo").disabled = acts.length === 0;
}

const place = (event) => {
  const canvas = $("brush-canvas");
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  const force = event.pointerType === "pen" ? 0.4 + 1.2 * event.pressure : 1;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale, diameter() * scale * force];
};

/** The brush's width on the screen: a share of the picture's width. */
const diameter = () => ($("brush-canvas").getBoundingClientRect().width * Number($("brush-size").value)) / 100;

/** Show the brush at a place, in pixels of the screen from the picture's corner. */
function ring(x, y, shown = true) {
  const style = $("brush-ring").style;
  style.setProperty("--x", `${x}px`);
  style.setProperty("--y", `${y}px`);
  style.setProperty("--size", `${diameter()}px`);
  show($("brush-ring"), shown);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The brush by keyboard: arrows move it by half its width, the space bar paints where it is. */
function keys(canvas) {
  let [x, y] = [0.5, 0.5]; // of the picture's width and height
  const move = ([right, down]) => {
    const box = canvas.getBoundingClientRect();
    const step = diameter() / 2;
    x = Math.min(1, Math.max(0, x + (right * step) / box.width));
    y = Math.min(1, Math.max(0, y + (down * step) / box.height));
    ring(x * box.width, y * box.height);
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.key !== " " && !ARROWS[event.key]) return;
    event.preventDefault();
    if (ARROWS[event.key]) return void move(ARROWS[event.key]);
    const width = (diameter() * canvas.width) / canvas.getBoundingClientRect().width;
    add({ erase, dots: [[x * canvas.width, y * canvas.height, width]] });
  });
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && move([0, 0]));
  canvas.addEventListener("blur", () => show($("brush-ring"), false));
}

function strokes(canvas) {
  let stroke = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || stroke) return; // a second finger does not paint
    canvas.setPointerCapture(event.pointerId);
    stroke = { erase, dots: [place(event)], pointer: event.pointerId };
    add(stroke);
  });
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    ring(event.clientX - box.left, event.clientY - box.top, event.pointerType !== "touch");
    if (stroke?.pointer !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) {
      stroke.dots.push(place(each));
      segment(stroke, stroke.dots.length - 1, pen());
    }
  });
  const end = (event) => {
    if (stroke?.pointer !== event.pointerId) return;
    stroke = null;
    tell();
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => show($("brush-ring"), false));
}

/** The mask as a PNG: white on black. */
function file() {
  const canvas = $("brush-canvas");
  const flat = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  const context = flat.getContext("2d");
  context.drawImage(canvas, 0, 0);
  tint(context, "#fff");
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#000";
  context.fillRect(0, 0, flat.width, flat.height);
  return new Promise((resolve) => flat.toBlob((blob) => resolve(new File([blob], "mask.png")), "image/png"));
}

async function use() {
  if (share() === 0) return complain("error-brush", "Nothing is painted; paint where it counts, or take the whole picture");
  $("brush-use").disabled = true;
  try {
    close((await api.upload(await file(), "mask", limits)).id);
  } catch (error) {
    complain("error-brush", error.message);
  } finally {
    $("brush-use").disabled = false;
  }
  return undefined;
}

async function take(chosen) {
  complain("error-brush", "");
  try {
    const mask = await api.upload(chosen, "mask", limits);
    const [given, wanted] = [mask.width / mask.height, content.width / content.height];
    if (Math.abs(given / wanted - 1) > 0.01) {
      throw new api.Refusal(`${chosen.name}: must have the picture's shape (${content.width} x ${content.height}), `
        + `got ${mask.width} x ${mask.height}; crop it`);
    }
    add({ base: await picture(api.thumbnail(mask.id)) });
  } catch (error) {
    complain("error-brush", error.message);
  }
}

export function prepare() {
  strokes($("brush-canvas"));
  keys($("brush-canvas"));
  $("brush-erase").addEventListener("click", () => setErase(!erase));
  $("brush-undo").addEventListener("click", () => { acts.pop(); redraw(); });
  $("brush-clear").addEventListener("click", () => add({ clear: true }));
  $("brush-fill").addEventListener("click", () => add({ fill: true }));
  $("brush-whole").addEventListener("click", () => close(null));
  $("brush-cancel").addEventListener("click", () => close(undefined));
  $("brush-use").addEventListener("click", use);
  $("brush-file").addEventListener("change", ({ target }) => {
    if (target.files[0]) take(target.files[0]);
    target.value = "";
  });
  $("brush").addEventListener("cancel", () => { answer?.(undefined); answer = null; }); // the Escape key
  $("brush").addEventListener("keydown", (event) => {
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || $("brush-undo").disabled) return;
    event.preventDefault();
    $("brush-undo").click();
  });
}
