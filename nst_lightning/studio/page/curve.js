// The loss against evaluations, as SVG, on a logarithmic scale where that is possible.

import { count, write } from "./dom.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, BORDER] = [280, 120, 4];

/** @param {number[][]} points pairs of evaluation and loss */
export function draw(svg, words, points) {
  const known = points.filter(([, loss]) => Number.isFinite(loss));
  svg.replaceChildren();
  if (known.length < 2) return write(words, "");
  const positive = known.every(([, loss]) => loss > 0);
  const heights = known.map(([, loss]) => (positive ? Math.log(loss) : loss));
  const [least, most] = [Math.min(...heights), Math.max(...heights)];
  const [first, last] = [known[0], known[known.length - 1]];
  const x = (evaluation) => BORDER + ((evaluation - first[0]) / (last[0] - first[0] || 1)) * (WIDTH - 2 * BORDER);
  const y = (height) => BORDER + (1 - (height - least) / (most - least || 1)) * (HEIGHT - 2 * BORDER);
  const path = document.createElementNS(NAMESPACE, "path");
  const steps = known.map(([evaluation], index) => `${x(evaluation).toFixed(1)} ${y(heights[index]).toFixed(1)}`);
  path.setAttribute("d", `M${steps.join("L")}`);
  svg.append(path);
  const text = `From ${figure(first[1])} to ${figure(last[1])} after ${count(last[0], "evaluation")}.`;
  svg.setAttribute("aria-label", `Curve of the loss. ${text}`);
  return write(words, text);
}

const figure = (value) => String(Number(value.toPrecision(3)));
