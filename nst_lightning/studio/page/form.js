// What is asked for: the controls on the left, read into the body of a request and written from one.

import * as api from "./api.js";
import { paint } from "./brush.js";
import { $, complain, factor, make, say, show, write, writeName } from "./dom.js";

const SLIDERS = ["strength", "stroke_size"]; // factors, which their sliders have as powers of two
const WITHOUT_CONTENT = "texture"; // the preset that takes a style alone
const MOST_STYLES = 8;
const KEPT_NAMES = 500; // of uploads, for the titles of their pictures
const FIELDS = ["content", "styles", "preset", "size", "strength", "likeness", "stroke_size", "keep_colors", "protect_faces", "regions",
  "length", "seed", "options"];
const NEUTRAL = 0.5; // a likeness

const NUMBERS = [["size", "size", "Size"], ["length-number", "length", "Length"], ["seed", "seed", "Seed"]];

let facts = null;
let content = null; // {id, name, width, height}; width is null while it is not known
let contentMask = null;
let styles = []; // {image, name, credit, weight, mask}
let options = {};
let likeness = null; // the preset's own
let changed = () => {};
const refusedUploads = new Set(); // "content" or "styles", where a line about a file stands
const exact = {}; // factors as they were given, which a slider's steps would round

// ---- reading and writing

export const isUntouched = () => content === null && styles.length === 0;
export const currentContent = () => content;
export const nameOf = (id) => names()[id] ?? shipped(id)?.title ?? "own picture";

/** The body of a request for what the form shows. */
export function read() {
  const length = $("length").value;
  return {
    content: $("preset").value === WITHOUT_CONTENT ? null : content?.id ?? null,
    styles: styles.map(({ image, weight, mask }) => ({ image, weight, mask })),
    preset: $("preset").value,
    size: number("size"),
    strength: exact.strength,
    likeness,
    stroke_size: exact.stroke_size,
    keep_colors: $("keep_colors").checked,
    protect_faces: $("protect_faces").checked,
    regions: number("regions"),
    evaluations: length === "evaluations" ? number("length-number") : null,
    seconds: length === "seconds" ? number("length-number") : null,
    seed: number("seed") ?? 0,
    content_mask: contentMask,
    options,
  };
}

/** Bring the settings of a picture, or of a file, back into the form. */
export function fill(asked) {
  if (asked.content !== content?.id) content = asked.content ? known(asked.content) : null;
  contentMask = asked.content_mask ?? null;
  styles = (asked.styles ?? []).map(({ image, weight, mask }) => style(image, weight ?? 1, mask ?? null));
  if (![...$("preset").options].some(({ value }) => value === asked.preset)) $("preset").add(new Option(asked.preset));
  $("preset").value = asked.preset;
  $("size").value = asked.size ?? "";
  for (const name of SLIDERS) setFactor(name, asked[name] ?? 1);
  likeness = asked.likeness ?? null;
  $("keep_colors").checked = asked.keep_colors ?? false;
  $("protect_faces").checked = asked.protect_faces ?? false;
  $("regions").value = asked.regions ?? "";
  $("length").value = asked.evaluations != null ? "evaluations" : asked.seconds != null ? "seconds" : "";
  $("length-number").value = asked.evaluations ?? asked.seconds ?? "";
  $("seed").value = asked.seed ?? 0;
  options = asked.options ?? {};
  refresh();
}

/** What has to be chosen before anything can be planned, or null. */
export function missing() {
  if (!content && $("preset").value !== WITHOUT_CONTENT) {
    return { field: "content", line: styles.length ? "Choose a picture." : "Choose a picture and a style." };
  }
  return styles.length ? null : { field: "styles", line: "Choose a style." };
}

/** The first number that cannot be meant, in one line, or null; the server has the last word. */
export function wrong() {
  for (const [id, field, name] of NUMBERS) {
    const { validity, min, max, value, hidden } = $(id);
    const must = validity.rangeUnderflow ? `at least ${min}` : validity.rangeOverflow ? `at most ${max}`
      : validity.badInput || validity.stepMismatch ? "a whole number" : null;
    if (must && !hidden) return { field, line: `${name}: must be ${must}${value && `, got ${value}`}` };
  }
  return null;
}

const number = (id) => ($(id).value === "" ? null : Number($(id).value));

function setFactor(name, value) {
  exact[name] = value;
  $(name).value = Math.log2(value);
  sayFactor(name);
}

function sayFactor(name) {
  const text = `× ${factor(exact[name])}`;
  write($(`${name}-said`), text);
  $(name).setAttribute("aria-valuetext", text);
}

const presetOf = (name) => facts.presets.find((preset) => preset.name === name);
const ownLikeness = () => presetOf($("preset").value)?.likeness ?? NEUTRAL;

/** Take the likeness that the slider has; where that is the preset's own it follows the preset from now on. */
function takeLikeness() {
  const value = Number($("likeness").value);
  likeness = value === ownLikeness() ? null : value;
}

function showLikeness() {
  const value = likeness ?? ownLikeness();
  const of = value === NEUTRAL ? ", neutral" : likeness === null ? ", the preset's own" : "";
  $("likeness").value = value;
  write($("likeness-said"), `${value}${of}`);
  $("likeness").setAttribute("aria-valuetext", `${value}${of}`);
}

/** How many regions the preset has, in the choice that leaves them to it. */
function showRegions() {
  write($("regions").options[0], `as the preset says: ${presetOf($("preset").value)?.regions || "none"}`);
}

/** Why faces cannot be looked for, in plain words; empty where they can. */
function whyNoFaces() {
  if (!facts.faces.can_be_found) return `Not possible on this server, since it ${facts.faces.reason}`;
  if ($("preset").value === WITHOUT_CONTENT) return "A texture has no photograph in which faces could be looked for.";
  if (contentMask !== null) return "What you have painted stays clear instead: paint faces there, too.";
  return "";
}

function showFaces() {
  const why = whyNoFaces();
  $("protect_faces").disabled = why !== "";
  if (why) $("protect_faces").checked = false;
  write($("help-protect_faces"), why || "Faces that are found in the photograph stay clear; all else is painted a little more freely.");
}

// ---- pictures that are known

const names = () => JSON.parse(localStorage.getItem("names") ?? "{}");
const shipped = (id) => [...(facts?.styles ?? []), ...(facts?.contents ?? [])].find((item) => item.id === id);

/** Keep the names of uploads by their ids. */
export function remember(found) {
  const kept = names();
  if (Object.entries(found).every(([id, name]) => kept[id] === name)) return;
  const last = Object.entries({ ...kept, ...found }).slice(-KEPT_NAMES);
  localStorage.setItem("names", JSON.stringify(Object.fromEntries(last)));
}

/** A content of which only the id is at hand; its shape is that of its thumbnail. */
function known(id) {
  const found = { id, name: nameOf(id), width: null, height: null };
  const image = new Image();
  image.src = api.thumbnail(id);
  image.decode().then(() => {
    found.width ??= image.naturalWidth;
    found.height ??= image.naturalHeight;
  }).catch(() => {
    if (content?.id === id) complain("error-content", "This picture is no longer on the server; choose it again");
  });
  return found;
}

function style(image, weight = 1, mask = null) {
  const of = shipped(image);
  return { image, weight, mask, name: nameOf(image), credit: of ? credit(of) : [] };
}

/** Who made a picture that the package carries, under which licence, and where it comes from. */
function credit({ artist, licence, source }) {
  const from = /^https?:/.test(source ?? "") ? make("a", { href: source, target: "_blank", rel: "noreferrer" }, "source") : null;
  return [artist, licence, from].filter(Boolean).flatMap((part, index) => (index ? [", ", part] : [part]));
}

// ---- showing

function refresh() {
  show($("content-shown"), content !== null);
  write($("content-choose"), content ? "Another picture" : "Choose a picture");
  if (content) {
    showImage($("content-image"), content.id);
    writeName($("content-name"), content.name);
    write($("content-size"), content.width && !shipped(content.id) ? `${content.width} × ${content.height} px` : "");
    write($("content-painted"), contentMask ? "Part of it stays clear, as painted." : "");
    show($("content-painted"), contentMask !== null);
  }
  $("content-paint").setAttribute("aria-pressed", String(contentMask !== null));
  $("styles").replaceChildren(...styles.map(row));
  for (const button of $("gallery").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(styles.some(({ image }) => image === button.dataset.id)));
  }
  showControls();
  showOptions();
  changed();
}

/** What controls say of each other. */
function showControls() {
  showLength();
  showPreset();
  showLikeness();
  showRegions();
  showFaces();
}

function showImage(image, id) {
  const url = api.thumbnail(id);
  if (image.getAttribute("src") !== url) image.src = url;
}

function showLength() {
  const unit = $("length").value;
  show($("length-number"), unit !== "");
  $("length-number").setAttribute("aria-label", `How many ${unit}`);
}

function showPreset() {
  const preset = presetOf($("preset").value);
  const weights = preset?.needs_weights && !preset.weights_present ? "The network's weights are downloaded first." : "";
  write($("help-preset"), preset ? [preset.gives, weights || preset.takes].filter(Boolean).join(" ") : "");
}

function showOptions() {
  const entries = Object.entries(options);
  const text = entries.map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join(", ");
  write($("options"), entries.length > 3 ? `With ${entries.length} settings of a file.` : `With ${text}.`);
  $("options").title = text;
  show($("options"), entries.length > 0);
  show($("options-remove"), entries.length > 0);
}

function row(item, index) {
  const weightId = `weight-${index}`;
  const said = make("output", {}, `× ${factor(item.weight)}`);
  const slider = make("input", { type: "range", id: weightId, min: 0.1, max: 3, step: 0.1, value: item.weight,
    aria: { valuetext: said.textContent } });
  slider.addEventListener("input", () => {
    item.weight = Number(slider.value);
    write(said, `× ${factor(item.weight)}`);
    slider.setAttribute("aria-valuetext", said.textContent);
    changed();
  });
  const painted = make("button", { type: "button", aria: { pressed: String(item.mask !== null) } }, "Paint where");
  painted.setAttribute("aria-label", `Paint where ${item.name} goes`);
  painted.addEventListener("click", () => paintStyle(item));
  const name = make("p", { className: "name" });
  writeName(name, item.name);
  const away = make("button", { type: "button", className: "quiet away", aria: { label: `Remove ${item.name}` } }, "×");
  away.addEventListener("click", () => {
    styles.splice(index, 1);
    refresh();
    $("styles-file").focus();
  });
  const weight = make("div", { className: "field", hidden: styles.length < 2 },
    make("label", { htmlFor: weightId }, "Weight ", said), slider);
  return make("li", { className: "chosen", data: { image: item.image } },
    make("img", { src: api.thumbnail(item.image), alt: "" }),
    make("div", { className: "text" },
      name,
      make("p", { className: "help", hidden: item.credit.length === 0 }, ...item.credit),
      make("p", { className: "help", hidden: item.mask === null }, "Goes where it is painted."),
      weight,
      make("div", { className: "buttons" }, painted)),
    away);
}

// ---- masks

async function paintStyle(item) {
  const mask = await painting({ title: `Where ${item.name} goes`, mask: item.mask,
    help: "Paint where this style goes; the rest is left to the others." });
  if (mask === undefined) return;
  item.mask = mask;
  refresh();
}

async function paintContent() {
  const mask = await painting({ title: "What stays clear", mask: contentMask,
    help: "Paint what is to stay recognisable, a face for instance." });
  if (mask === undefined) return;
  contentMask = mask;
  refresh();
}

async function painting(asked) {
  if (!content?.width) {
    complain("error-content", "Choose a picture first: it is what you paint on");
    return undefined;
  }
  try {
    return await paint({ ...asked, content, limits: facts.limits });
  } catch {
    complain("error-content", "This picture or its mask is no longer on the server; choose it again");
    return undefined;
  }
}

// ---- choosing

function setContent(chosen) {
  const masked = contentMask !== null || styles.some(({ mask }) => mask !== null);
  const same = chosen?.width && content?.width && Math.abs(chosen.width / chosen.height / content.width * content.height - 1) < 0.01;
  if (masked && !same) {
    contentMask = null;
    for (const item of styles) item.mask = null;
  }
  content = chosen;
  refuseUploads("content", []);
  say(chosen ? `${chosen.name} is the picture.` : "No picture is chosen.");
  refresh();
}

function toggleStyle(id) {
  const at = styles.findIndex(({ image }) => image === id);
  const refused = [];
  try {
    if (at >= 0) styles.splice(at, 1);
    else addStyle(id);
  } catch (error) {
    refused.push(error.message);
  }
  refresh();
  refuseUploads("styles", refused);
}

function addStyle(id) {
  if (styles.length >= MOST_STYLES) throw new api.Refusal(`At most ${MOST_STYLES} styles; remove one first`, "styles");
  styles.push(style(id));
  say(`${nameOf(id)} is added to the styles.`);
}

/** Upload files and take them as the content, or as further styles; what is against one does not hold the others up. */
export async function take(files, where) {
  const set = $(`${where}-set`);
  const refused = [];
  set.setAttribute("aria-busy", "true");
  refuseUploads(where, refused);
  for (const file of where === "content" ? files.slice(0, 1) : files) {
    say(`${file.name} is being uploaded.`);
    try {
      const uploaded = await api.upload(file, "picture", facts.limits);
      const name = file.name || "pasted picture";
      remember({ [uploaded.id]: name });
      if (where === "content") setContent({ ...uploaded, name });
      else addStyle(uploaded.id);
    } catch (error) {
      refused.push(error.message);
    }
  }
  set.removeAttribute("aria-busy");
  refresh();
  refuseUploads(where, refused);
}

function refuseUploads(where, lines) {
  if (lines.length) refusedUploads.add(where);
  else refusedUploads.delete(where);
  complain(`error-${where}`, lines.join(" · "), $(`${where}-file`));
}

/** Let files be dropped on an element. */
function droppable(element, where) {
  const over = (on) => (event) => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault();
    element.classList.toggle("over", on);
  };
  element.addEventListener("dragenter", over(true));
  element.addEventListener("dragover", over(true));
  element.addEventListener("dragleave", over(false));
  element.addEventListener("drop", (event) => {
    over(false)(event);
    take([...event.dataTransfer.files], where);
  });
}

const files = (id, where) => $(id).addEventListener("change", ({ target }) => {
  take([...target.files], where);
  target.value = ""; // the same file may be chosen again
});

async function takeConfiguration(file) {
  complain("error-options", "");
  try {
    const { asked, pictures } = await api.configuration(await file.text());
    fill({ ...read(), ...asked });
    const named = [pictures.content, ...pictures.styles.map(({ name }) => name)].filter(Boolean);
    const begun = pictures.init ? ` Its picture began with ${pictures.init}, which a new one here does not.` : "";
    say(`The file's settings are taken.${named.length ? ` Its pictures are ${named.join(" and ")}: choose them.` : ""}${begun}`);
  } catch (error) {
    complain("error-options", error.message, $("configuration"));
  }
}

// ---- errors

/** Show what the server has against the settings beside the one that it is about; null takes all lines away. */
export function showRefusal(refusal) {
  const named = refusal?.field ?? "";
  const beside = refusal ? FIELDS.find((field) => mentions(named, field)) ?? "start" : null;
  for (const field of [...FIELDS, "start"]) {
    if (refusedUploads.has(field) && field !== beside) continue; // that line stays until the next upload
    complain(`error-${field}`, field === beside ? refusal.message : "", $(field) ?? $(`${field}-file`));
  }
  return beside;
}

const ALIKE = { evaluations: "length", seconds: "length", image: "styles", style: "styles", weight: "styles",
  content_mask: "content", mask: "styles", color: "keep_colors", seed_everything: "seed" };

/** Whether a name such as `styles.0.image` or `data.size` is about a control. */
function mentions(named, field) {
  const parts = named.split(/[.[\]]+/).filter(Boolean);
  return parts.some((part) => (ALIKE[part] ?? part) === field);
}

// ---- beginning

function fillChoices() {
  $("preset").replaceChildren(...facts.presets.map(({ name }) => new Option(name)));
  $("preset").value = facts.presets.some(({ name }) => name === "fast") ? "fast" : facts.presets[0]?.name;
  if (facts.limits.max_size) $("size").max = facts.limits.max_size;
  $("gallery").replaceChildren(...facts.styles.map((item) => {
    const button = make("button", { type: "button", data: { id: item.id }, aria: { pressed: "false" },
      title: [item.title, item.artist, item.licence].filter(Boolean).join(", ") },
    make("img", { src: api.thumbnail(item.id), alt: "" }), make("span", {}, item.title));
    button.addEventListener("click", () => toggleStyle(item.id));
    return make("li", {}, button);
  }));
  const counts = Array.from({ length: facts.limits.regions - 1 }, (_, index) => index + 2);
  $("regions").replaceChildren(new Option("", ""), new Option("none", "0"), ...counts.map((count) => new Option(String(count))));
  $("content-shipped").replaceChildren(...facts.contents.map((item) => {
    const button = make("button", { type: "button", className: "quiet", title: item.title },
      facts.contents.length > 1 ? item.title : "An example");
    button.addEventListener("click", () => setContent(known(item.id)));
    return button;
  }));
}

/** @param {() => void} onChange is called whenever a setting has changed */
export function prepare(theFacts, onChange) {
  facts = theFacts;
  fillChoices();
  for (const name of SLIDERS) {
    setFactor(name, 1);
    $(name).addEventListener("input", () => {
      exact[name] = Number((2 ** Number($(name).value)).toPrecision(3));
      sayFactor(name);
    });
  }
  $("likeness").addEventListener("input", takeLikeness);
  files("content-file", "content");
  files("content-camera", "content");
  files("styles-file", "styles");
  droppable($("content-set"), "content");
  droppable($("easel"), "content");
  droppable($("styles-set"), "styles");
  for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault()); // not left for a file
  addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length) take(pasted, event.target.closest?.("#styles-set") ? "styles" : "content");
  });
  $("content-paint").addEventListener("click", paintContent);
  $("content-remove").addEventListener("click", () => { setContent(null); $("content-file").focus(); });
  $("configuration").addEventListener("change", ({ target }) => {
    if (target.files[0]) takeConfiguration(target.files[0]);
    target.value = "";
  });
  $("options-remove").addEventListener("click", () => { options = {}; refresh(); });
  $("ask").addEventListener("input", () => { showControls(); onChange(); });
  changed = onChange;
  refresh();
}
