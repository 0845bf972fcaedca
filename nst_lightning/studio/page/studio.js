// The page: the form on the left, the picture in the middle, the strip of pictures, and the server's news.
// The picture that is looked at is named by the address (#id), so that a reload comes back to it.

import * as api from "./api.js";
import * as brush from "./brush.js";
import { $, bytes, complain, count, isNarrow, quietly, say, seconds, show, write } from "./dom.js";
import * as form from "./form.js";
import * as history from "./history.js";
import * as stage from "./stage.js";

const pictures = new Map();
let facts = null;
let selected = null;

// ---- which picture is looked at

const inAddress = () => /^#([0-9a-f]{16})$/.exec(location.hash)?.[1] ?? null;

/** Look at a picture, or at none to begin a new one. */
function go(id, picture = null) {
  if (picture) learn(picture);
  if (location.hash === `#${id ?? "new"}`) follow();
  else location.hash = id ?? "new";
}

function follow() {
  const id = inAddress();
  if (id && !pictures.has(id)) return; // it is not known yet, or not any more
  const other = id !== selected;
  selected = id;
  const picture = id ? pictures.get(id) : null;
  if (other && picture) form.fill(picture.asked);
  stage.select(picture);
  history.mark(id);
  if (!picture) document.title = "nst studio";
  showEasel();
  if (other && picture && isNarrow()) $("stage").scrollIntoView();
}

/** A page that asks for nothing shows what is being made. */
function join() {
  if (location.hash || !form.isUntouched()) return;
  const running = [...pictures.values()].find(({ status }) => ["running", "stopping", "queued"].includes(status));
  if (running) go(running.id);
}

// ---- the server's news

function learn(picture) {
  pictures.set(picture.id, picture);
  if (picture.names) form.remember(picture.names);
  history.update(picture, selected, go);
  if (picture.id === selected) stage.update(picture);
  else if (picture.id === inAddress()) follow();
}

function forget(id) {
  pictures.delete(id);
  history.remove(id);
  if (id !== selected) return;
  say("This picture has been removed.");
  go(null);
}

/** After a time without connection: what is new, and what is gone. */
async function opened() {
  show($("connection"), false);
  try {
    const now = await api.pictures();
    for (const picture of [...now].reverse()) learn(picture);
    const there = new Set(now.map(({ id }) => id));
    for (const id of history.known()) if (!there.has(id)) forget(id);
    if (inAddress() && !there.has(inAddress())) go(null);
    join();
  } catch {
    // the stream of events tells it again
  }
}

const news = (picture) => {
  learn(picture);
  join();
};

// ---- the plan and the start

let planning = null;

const plan = quietly(400, async () => {
  planning?.abort();
  const missing = form.missing();
  if (missing) {
    form.showRefusal(null);
    return write($("plan"), missing.line);
  }
  const wrong = form.wrong();
  if (wrong) {
    write($("plan"), "");
    return form.showRefusal(new api.Refusal(wrong.line, wrong.field));
  }
  planning = new AbortController();
  try {
    const planned = await api.plan(form.read(), planning.signal);
    form.showRefusal(null);
    write($("plan"), inWords(planned));
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    write($("plan"), "");
    form.showRefusal(error);
  }
  return undefined;
});

const inWords = ({ width, height, evaluations, seconds: time, bytes: memory, device, precision }) => [
  `${width} × ${height} px`, evaluations && count(evaluations, "evaluation"), time && `about ${seconds(time)}`,
  memory && `${bytes(memory)} of memory`, [device, precision].filter(Boolean).join(", "),
].filter(Boolean).map((part) => part.replaceAll(" × ", "\u00a0×\u00a0")).join(" · ");

async function start(event) {
  event.preventDefault();
  plan.off(); // a plan that comes later would take away what is said now
  planning?.abort();
  const missing = form.missing();
  if (missing) {
    write($("plan"), missing.line);
    form.showRefusal(new api.Refusal(missing.line, missing.field));
    return $(`${missing.field}-file`).focus();
  }
  $("start").disabled = true;
  try {
    const picture = await api.submit(form.read());
    form.showRefusal(null);
    say("It has begun.");
    go(picture.id, picture);
    plan();
  } catch (error) {
    const field = form.showRefusal(error);
    ($(field) ?? $(`${field}-file`))?.focus();
  } finally {
    $("start").disabled = false;
  }
  return undefined;
}

/** Before a run, the picture in the middle is the content. */
function showEasel() {
  const content = form.currentContent();
  show($("easel-image"), content !== null);
  show($("easel-empty"), content === null);
  if (content && $("easel-image").getAttribute("src") !== api.thumbnail(content.id)) {
    $("easel-image").src = api.thumbnail(content.id);
  }
}

async function begin() {
  try {
    facts = await api.facts();
  } catch (error) {
    complain("error-start", error.message);
    setTimeout(begin, 3000);
    return;
  }
  complain("error-start", "");
  const { device } = facts;
  write($("device"), [device.name ?? device.accelerator, device.precision].filter(Boolean).join(", "));
  brush.prepare();
  form.prepare(facts, () => { showEasel(); plan(); });
  stage.prepare(facts, go);
  $("ask").addEventListener("submit", start);
  addEventListener("hashchange", follow);
  api.listen({ picture: news, removed: forget, opened, lost: () => show($("connection"), true) });
}

begin();
