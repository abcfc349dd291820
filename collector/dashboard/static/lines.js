// Depth, spread and rate.

import { minute, rounded } from "./format.js";
import { AXIS, FOOT, footAxis, scale, surface, tellEmpty, ticks, valueAxis } from "./surface.js";

const HISTORY = 600; // seconds of samples, as the server keeps them
const SHORTEST = 120; // seconds that are shown at least

/** Draw a book's depth, as far from the middle as both sides reach. Returns what is on offer up to the pointer. */
export function drawDepth(canvas, book, pointer) {
  const paper = surface(canvas);
  const { context, width, height, color } = paper;
  if (!book?.middle) {
    tellEmpty(paper, "no book");
    return "";
  }
  const middle = Number(book.middle);
  const reach = Math.min(middle - book.bid_depth.at(-1)[0], book.ask_depth.at(-1)[0] - middle);
  const x = scale(middle - reach, middle + reach, 0, width - AXIS);
  const sides = [["buy", book.bid_depth], ["sell", book.ask_depth]].map(([name, points]) => [
    name, points.filter(([price]) => Math.abs(price - middle) <= reach * 1.0001),
  ]);
  const most = Math.max(...sides.map(([, points]) => points.at(-1)?.[1] ?? 0)) || 1;
  const bottom = height - FOOT;
  const y = scale(0, most * 1.05, bottom, 4);
  valueAxis(paper, ticks(0, most, 3), y, (value) => rounded(value, 4));
  footAxis(paper, ticks(middle - reach, middle + reach, Math.max(2, width / 130)).map((price) => [x(price), rounded(price, 7)]));
  for (const [name, points] of sides) {
    context.beginPath();
    context.moveTo(x(points[0]?.[0] ?? middle), bottom);
    let last = 0;
    for (const [price, sum] of points) {
      context.lineTo(x(price), y(last));
      context.lineTo(x(price), y(sum));
      last = sum;
    }
    const edge = name === "buy" ? 0 : width - AXIS;
    context.lineTo(edge, y(last));
    context.strokeStyle = context.fillStyle = color(name);
    context.stroke();
    context.lineTo(edge, bottom);
    context.closePath();
    context.globalAlpha = 0.18;
    context.fill();
    context.globalAlpha = 1;
  }
  if (pointer === null || pointer > width - AXIS) return "";
  const price = middle - reach + (pointer / (width - AXIS)) * 2 * reach;
  const [name, points] = sides[price < middle ? 0 : 1];
  const within = points.filter(([at]) => Math.abs(at - middle) <= Math.abs(price - middle));
  context.fillStyle = color("muted");
  context.fillRect(Math.round(pointer), 0, 1, bottom);
  return `${name === "buy" ? "bids down" : "asks up"} to ${rounded(price, 8)}: ${rounded(within.at(-1)?.[1] ?? 0, 6)}`;
}

/** Draw a sample's value (its place in the row: 1 spread, 2 updates) over the last minutes. */
export function drawSamples(canvas, samples, place, isBars) {
  const paper = surface(canvas);
  const { context, width, height, color } = paper;
  const known = samples.filter((sample) => sample[place] !== null && sample[place] !== undefined);
  if (!known.length) {
    tellEmpty(paper, "nothing seen yet");
    return;
  }
  const end = samples.at(-1)[0] + 1;
  const begin = Math.max(end - HISTORY, Math.min(samples[0][0], end - SHORTEST));
  const x = scale(begin, end, 0, width - AXIS);
  const bottom = height - FOOT;
  const most = Math.max(...known.map((sample) => sample[place])) || 1;
  const y = scale(0, most * 1.08, bottom, 4);
  valueAxis(paper, ticks(0, most, 2), y, (value) => rounded(value, 3));
  const marks = [];
  const every = end - begin > 300 ? 120 : 60;
  for (let time = Math.ceil(begin / every) * every; time < end; time += every) marks.push([x(time), minute(time * 1000)]);
  footAxis(paper, marks);
  context.fillStyle = context.strokeStyle = color("accent");
  const wide = Math.max(1, x(begin + 1) - x(begin));
  context.beginPath();
  let before = null;
  for (const sample of known) {
    const left = x(sample[0]), top = y(sample[place]);
    if (isBars) context.fillRect(left, top, wide, bottom - top);
    else {
      // Where a second is missing nobody was watching: the line breaks.
      if (before === sample[0] - 1) context.lineTo(left, top);
      else context.moveTo(left, top);
      context.lineTo(left + wide, top);
    }
    before = sample[0];
  }
  context.stroke();
}
