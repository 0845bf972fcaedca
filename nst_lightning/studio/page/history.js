// The strip of all pictures of the server, newest first; each is a way back to its settings.

import { thumbnail } from "./api.js";
import { $, make, show, write, writeName } from "./dom.js";
import { state, titleOf } from "./stage.js";

const REFRESH = 5000; // milliseconds between two small pictures of a run: the large one is what is watched

const items = new Map(); // by id: {item, button, image, text, loaded}

function build(picture, go) {
  const image = make("img", { alt: "", loading: "lazy" });
  const name = make("span", { className: "name" });
  const text = make("span", { className: "help" });
  const button = make("button", { type: "button", data: { id: picture.id } }, make("span", { className: "frame" }, image), name, text);
  button.addEventListener("click", () => go(picture.id));
  return { item: make("li", {}, button), button, image, name, text, loaded: -Infinity };
}

/** Show what is known of a picture, as a new item where it is new. */
export function update(picture, selected, go) {
  let entry = items.get(picture.id);
  if (!entry) {
    entry = build(picture, go);
    items.set(picture.id, entry);
  }
  entry.item.dataset.created = picture.created;
  entry.button.dataset.status = picture.status;
  writeName(entry.name, titleOf(picture));
  write(entry.text, `${picture.asked.preset}, ${Math.max(picture.width, picture.height) || "?"} px. ${state(picture, { short: true })}`);
  const source = picture.preview ?? (picture.asked.content && thumbnail(picture.asked.content));
  entry.image.classList.toggle("content", !picture.preview);
  const now = performance.now();
  const running = picture.status === "running";
  if (source && entry.image.getAttribute("src") !== source && (!running || now - entry.loaded > REFRESH)) {
    entry.image.src = source;
    entry.loaded = picture.preview ? now : -Infinity;
  }
  place(entry);
  mark(selected);
}

function place(entry) {
  if (entry.item.isConnected) return;
  const older = [...$("history-list").children].find(({ dataset }) => dataset.created < entry.item.dataset.created);
  $("history-list").insertBefore(entry.item, older ?? null);
  show($("history-empty"), items.size === 0);
}

export function remove(id) {
  items.get(id)?.item.remove();
  items.delete(id);
  show($("history-empty"), items.size === 0);
}

/** Mark the picture that is looked at. */
export function mark(selected) {
  for (const [id, { button }] of items) {
    if (id === selected) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

export const known = () => [...items.keys()];
