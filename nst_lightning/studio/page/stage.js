// The picture that is looked at: growing, finished, and what can be done with it.

import * as api from "./api.js";
import { draw } from "./curve.js";
import { $, bytes, complain, count, factor, isNarrow, make, quietly, say, seconds, show, write, writeName } from "./dom.js";
import { nameOf } from "./form.js";

const FILES = [
  ["PNG", "result?format=png", "png"], ["JPEG", "result?format=jpg", "jpg"],
  ["TIFF, 16 bits", "result?format=tiff&bits=16", "tiff"], ["AVIF", "result?format=avif", "avif"],
  ["Timelapse", "timelapse", null], ["YAML", "configuration", null],
];
const FINAL = ["stopped", "finished", "failed"];

let shown = null; // the picture that is looked at
let formats = [];
let strengthFromHere = 1;
let quarter = -1; // of the run, that has been said last

/** Show another picture, or none. */
export function select(picture) {
  const other = shown?.id !== picture?.id;
  shown = picture;
  show($("view"), picture !== null);
  show($("easel"), picture === null);
  // On a narrow page the picture comes before the form, for the eye and for the keyboard.
  if (isNarrow() && picture) $("stage").parentElement.prepend($("stage"), $("history"));
  else $("stage").parentElement.append($("stage"), $("history"));
  if (!picture) return;
  if (other) begin();
  update(picture);
}

/** Forget what belonged to the picture before. */
function begin() {
  quarter = -1;
  $("after").replaceWith(make("img", { id: "after", alt: "" }));
  $("split").value = 0;
  complain("error-picture", "");
  complain("error-continue", "");
  $("continue-evaluations").value = "";
  $("curve").replaceChildren();
  write($("curve-said"), "");
  show($("curve-set"), false);
  write($("command"), "");
  setStrength(shown.asked.strength ?? 1);
}

/** Take news of the picture that is looked at. */
export function update(picture) {
  if (picture.id !== shown?.id) return;
  const before = shown.status;
  shown = picture;
  $("view").dataset.status = picture.status;
  $("compare").style.setProperty("--aspect", picture.width / picture.height || 1);
  writeName($("stage-title"), titleOf(picture));
  preview();
  showBefore();
  progress();
  actions();
  settings();
  curve();
  announce(before);
}

export const titleOf = ({ asked }) =>
  [asked.content && withoutEnding(nameOf(asked.content)), asked.styles.map(({ image }) => withoutEnding(nameOf(image))).join(" and ")]
    .filter(Boolean).join(", after ");

const withoutEnding = (name) => name.replace(/\.\w{1,5}$/, "");

// ---- the picture

let loading = false;

/** Bring the newest preview in, one at a time, and only once it is there: nothing flickers. */
async function preview() {
  const { id, preview: url } = shown;
  write($("waiting"), url ? "" : waiting(shown));
  show($("waiting"), !url);
  if (loading || !url || $("after").getAttribute("src") === url) return;
  loading = true;
  const image = make("img", { id: "after", src: url, alt: `${titleOf(shown)}: the picture so far` });
  try {
    await image.decode();
    if (shown?.id === id) $("after").replaceWith(image);
  } catch {
    // the next one is on its way
  }
  loading = false;
  if (shown && (shown.id !== id || (shown.preview !== url && image.complete))) preview();
}

function waiting({ status, place, error }) {
  if (status === "queued") return place > 1 ? `In the queue, at place ${place}` : "Next in the queue";
  if (status === "failed") return error ? "" : "It failed";
  return "The picture appears here in a moment";
}

function showBefore() {
  const possible = Boolean(shown.asked.content);
  show($("split-field"), possible && Boolean(shown.preview));
  show($("before"), possible);
  if (possible && $("before").getAttribute("src") !== api.thumbnail(shown.asked.content)) {
    $("before").src = api.thumbnail(shown.asked.content);
  }
  split();
}

function split() {
  const share = shown?.preview ? Number($("split").value) : 100; // until there is a preview, the content stands for it
  $("compare").style.setProperty("--split", `${share}%`);
  $("split").setAttribute("aria-valuetext", share === 0 ? "all after" : share === 100 ? "all before" : `${share} % before`);
  show($("cut"), share > 0 && share < 100 && !$("before").hidden);
}

/** The slider may also be drawn on the picture itself. */
function splitByPointer(area) {
  const to = ({ clientX, buttons }) => {
    if (!buttons || $("split-field").hidden) return;
    const box = area.getBoundingClientRect();
    $("split").value = (100 * (clientX - box.left)) / box.width;
    split();
  };
  area.addEventListener("pointerdown", to);
  area.addEventListener("pointermove", to);
}

// ---- how far it is

function progress() {
  const { evaluation, evaluations, status } = shown;
  $("progress").max = evaluations || 1;
  $("progress").value = evaluation;
  write($("progress-said"), state(shown));
  complain("error-picture", status === "failed" ? shown.error ?? "The run failed" : "");
}

/** What a picture is at, in a few words; even fewer if they are to be short. */
export function state({ status, place, evaluation, evaluations, seconds: spent, seconds_left: left }, { short = false } = {}) {
  const of = `${evaluation} of ${short ? evaluations : count(evaluations, "evaluation")}`;
  if (status === "queued") return place > 1 ? `Queued, place ${place}` : "Queued, next";
  if (status === "running") return left == null ? of : `${of}, ${seconds(left)} left`;
  if (status === "stopping") return `Stopping after ${count(evaluation, "evaluation")}`;
  if (status === "stopped") return `Stopped after ${of}`;
  if (status === "failed") return `Failed after ${of}`;
  return `Finished: ${count(evaluation, "evaluation")}${spent ? ` in ${seconds(spent)}` : ""}`;
}

/** Say the turns of a run, and each quarter of it, but not every step. */
function announce(before) {
  const { status, evaluation, evaluations } = shown;
  const now = Math.floor((4 * evaluation) / (evaluations || 1));
  if (before !== status || (status === "running" && now > quarter)) say(state(shown));
  quarter = now;
  const percent = Math.floor((100 * evaluation) / (evaluations || 1));
  document.title = `${status === "running" ? `${percent} %` : status} · nst studio`;
}

const fetchCurve = quietly(300, async () => {
  const { id } = shown ?? {};
  if (!id) return;
  try {
    const points = await api.losses(id);
    if (shown?.id !== id) return;
    draw($("curve"), $("curve-said"), points);
    show($("curve-set"), points.length > 1);
  } catch {
    // the next news of the picture tries again
  }
});

let asked = 0;

/** The curve follows the run, but asks no more than every second. */
function curve() {
  const now = performance.now();
  if (!shown.evaluation || (now - asked < 1000 && !FINAL.includes(shown.status))) return;
  asked = now;
  fetchCurve();
}

// ---- what can be done with it

function actions() {
  const { can } = shown;
  show($("stop"), Boolean(can.stop));
  write($("stop"), shown.status === "queued" ? "Take it out of the queue" : "Stop and keep it");
  show($("larger"), Boolean(can.larger));
  show($("remove"), Boolean(can.remove) && !can.stop);
  show($("continue-set"), Boolean(can.continue));
  show($("downloads"), Boolean(can.download));
  if (document.activeElement?.closest("[hidden]")) $("stage").focus({ preventScroll: true }); // not lost with its button
  if (can.continue && $("continue-evaluations").value === "") {
    $("continue-evaluations").value = shown.evaluations > shown.evaluation ? shown.evaluations - shown.evaluation
      : Math.max(1, Math.round(shown.evaluations / 2));
  }
  if (can.download) downloads();
}

function downloads() {
  const address = `/api/pictures/${shown.id}`;
  if ($("downloads-links").dataset.of !== address) {
    $("downloads-links").dataset.of = address;
    $("downloads-links").replaceChildren(...FILES.filter(([, , format]) => !format || formats.includes(format))
      .map(([text, path]) => make("a", { className: "button", href: `${address}/${path}`, download: "" }, text)));
  }
  write($("command"), shown.plan?.command ?? $("command").textContent);
  const { id } = shown;
  api.command(id).then((text) => shown?.id === id && write($("command"), text.trim())).catch(() => {});
}

function settings() {
  const { asked: given, plan, width, height, device } = shown;
  const length = given.evaluations != null ? count(given.evaluations, "evaluation")
    : given.seconds != null ? count(given.seconds, "second") : "as the preset says";
  const rows = [
    ["Preset", given.preset], ["Size", `${width} × ${height} px`], ["Strength", factor(given.strength ?? 1)],
    ["Likeness", given.likeness ?? ""], ["Stroke size", factor(given.stroke_size ?? 1)], ["Colours", given.keep_colors ? "the photograph's" : "the painting's"],
    ["Length", length], ["Seed", given.seed ?? 0], ["Masks", masks(given)], ["Regions", given.regions === 0 ? "none" : given.regions ?? ""],
    ["Begun from", shown.parent ? "a smaller picture" : ""],
    ["Device", [device, plan?.precision].filter(Boolean).join(", ")], ["Memory", plan?.bytes ? bytes(plan.bytes) : ""],
  ].filter(([, value]) => value !== "");
  const text = JSON.stringify(rows);
  if ($("settings").dataset.of === text) return;
  $("settings").dataset.of = text;
  $("settings").replaceChildren(...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
}

function masks(given) {
  const painted = given.styles.filter(({ mask }) => mask).length;
  return [painted && count(painted, "style") + " painted", given.content_mask && "part stays clear",
    given.protect_faces && "faces stay clear"].filter(Boolean).join(", ");
}

function setStrength(value) {
  strengthFromHere = value;
  $("continue-strength").value = Math.log2(value);
  write($("continue-strength-said"), `× ${factor(value)}`);
  $("continue-strength").setAttribute("aria-valuetext", `× ${factor(value)}`);
}

/** Do something with the picture; what is against it is said in its place. */
async function attempt(button, place, action) {
  button.disabled = true;
  complain(place, "");
  try {
    return await action(shown.id);
  } catch (error) {
    complain(place, error.message);
    return null;
  } finally {
    button.disabled = false;
  }
}

async function goOn(event) {
  event.preventDefault();
  const evaluations = Number($("continue-evaluations").value) || null;
  const strength = strengthFromHere === (shown.asked.strength ?? 1) ? null : strengthFromHere;
  const picture = await attempt(event.submitter ?? $("continue").querySelector("button"), "error-continue",
    (id) => api.goOn(id, { evaluations, strength }));
  if (!picture) return;
  $("continue-evaluations").value = "";
  update(picture);
  $("stage").focus({ preventScroll: true });
}

async function copy() {
  const text = $("command").textContent;
  try {
    await navigator.clipboard.writeText(text);
    write($("copy"), "Copied");
    say("The command line is copied.");
  } catch {
    getSelection().selectAllChildren($("command")); // without a secure address there is no clipboard
    write($("copy"), "Selected: copy it");
  }
  setTimeout(() => write($("copy"), "Copy"), 2000);
}

/** @param {(id: string|null) => void} go shows another picture, or none */
export function prepare(facts, go) {
  ({ formats } = facts);
  splitByPointer($("compare"));
  $("split").addEventListener("input", split);
  $("continue-strength").addEventListener("input", () => setStrength(Number((2 ** Number($("continue-strength").value)).toPrecision(3))));
  $("continue").addEventListener("submit", goOn);
  $("copy").addEventListener("click", copy);
  $("new").addEventListener("click", () => go(null));
  $("stop").addEventListener("click", async () => {
    const picture = await attempt($("stop"), "error-picture", api.stop);
    if (picture) update(picture);
  });
  $("larger").addEventListener("click", async () => {
    const picture = await attempt($("larger"), "error-picture", api.larger);
    if (picture) go(picture.id, picture);
  });
  $("remove").addEventListener("click", async () => {
    if (!confirm("Remove this picture and its files?")) return;
    if (await attempt($("remove"), "error-picture", api.remove)) go(null);
  });
}
