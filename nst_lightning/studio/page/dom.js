// Small help with the document, and how numbers are said.

export const $ = (id) => document.getElementById(id);

/** Whether the page is one column, as the style sheet has it. */
export const isNarrow = () => !matchMedia("(min-width: 900px) and (min-height: 560px)").matches;

/** Make an element: properties by name, `data` and `aria` as objects, children as nodes or text. */
export function make(tag, { data = {}, aria = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children);
  return element;
}

/** Change text only where it differs, so that a screen reader is not disturbed. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Write a file's name, which may break after its separators and need not anywhere else. */
export function writeName(element, name) {
  if (element.textContent === name) return;
  element.replaceChildren(...name.split(/(?<=[_.\-])/).flatMap((part) => [part, document.createElement("wbr")]));
}

export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

/** Say something to those who hear the page. */
export function say(text) {
  write($("said"), text);
}

/** Show an error line beside what it is about; an empty one takes it away. */
export function complain(id, text, control = null) {
  const place = $(id);
  write(place, text ?? "");
  show(place, Boolean(text));
  if (control) control.toggleAttribute("aria-invalid", Boolean(text));
  if (control && text) control.setAttribute("aria-invalid", "true");
  if (text) say(text);
}

export function seconds(value) {
  if (value == null) return "";
  if (value < 90) return `${Math.max(1, Math.round(value))}\u00a0s`;
  if (value < 5400) return `${Math.round(value / 60)}\u00a0min`;
  return `${Math.floor(value / 3600)}\u00a0h ${Math.round((value % 3600) / 60)}\u00a0min`;
}

export function bytes(value) {
  return value < 2 ** 29 ? `${Math.round(value / 2 ** 20)}\u00a0MiB` : `${(value / 2 ** 30).toFixed(1)}\u00a0GiB`;
}

/** A factor as people say it: 0.25, 1, 1.4, 16. */
export const factor = (value) => String(Number(Number(value).toPrecision(value < 1 || value >= 10 ? 2 : 3)));

export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** Call a function once its caller has been quiet for a while, unless it is called off before. */
export function quietly(milliseconds, action) {
  let timer = 0;
  const call = () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
  call.off = () => clearTimeout(timer);
  return call;
}
