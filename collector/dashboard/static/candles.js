// Candles with volumes, and the values of the one under the pointer.

import { dateOf, day, grouped, minute, rounded } from "./format.js";
import { AXIS, FOOT, footAxis, scale, surface, tellEmpty, ticks, valueAxis } from "./surface.js";

const TAG = 16; // px: the height of the last price's tag
const FEWEST = 40; // candles for which there is room
const VOLUME_SHARE = 0.2; // of the height

/** Draw `{since, until, width, candles}`; `pointer` is an x in pixels or null. Returns the candle there. */
export function drawCandles(canvas, found, pointer) {
  const paper = surface(canvas);
  const { context, width, height, color } = paper;
  const { since, width: seconds, candles } = found;
  if (!candles.length) {
    tellEmpty(paper, "no trades in this time");
    return null;
  }
  const slots = Math.ceil((found.until - since) / seconds);
  const slotOf = (candle) => Math.round((Date.parse(candle[0]) / 1000 - since) / seconds);
  const first = Math.min(slotOf(candles[0]), Math.max(0, slots - FEWEST)); // a young collection is not a speck at the edge
  const x = scale(first, slots, 0, width - AXIS);
  const bottom = height - FOOT;
  const lows = candles.map((candle) => Number(candle[3]));
  const highs = candles.map((candle) => Number(candle[2]));
  const low = Math.min(...lows), high = Math.max(...highs);
  const room = (high - low || high * 0.001) * 0.06;
  const y = scale(low - room, high + room, bottom * (1 - VOLUME_SHARE), 6);
  const volume = scale(0, Math.max(...candles.map((candle) => Number(candle[5]))), bottom, bottom * (1 - VOLUME_SHARE) + 8);
  const last = Number(candles.at(-1)[4]);
  const marks = ticks(low, high, 5).filter((value) => Math.abs(y(value) - y(last)) > TAG);
  valueAxis(paper, marks, y, (value) => rounded(value, 7));
  footAxis(paper, timeMarks(found, first, slots, x));

  const body = Math.max(1, Math.min(14, (x(first + 1) - x(first)) * 0.7));
  let chosen = null;
  for (const candle of candles) {
    const [open, top, base, close] = candle.slice(1, 5).map(Number);
    const middle = x(slotOf(candle) + 0.5);
    if (pointer !== null && Math.abs(pointer - middle) <= (x(first + 1) - x(first)) / 2) chosen = { candle, middle };
    context.fillStyle = context.strokeStyle = color(close >= open ? "buy" : "sell");
    context.globalAlpha = 0.35;
    context.fillRect(middle - body / 2, volume(Number(candle[5])), body, bottom - volume(Number(candle[5])));
    context.globalAlpha = 1;
    context.fillRect(Math.round(middle) - 0.5, y(top), 1, Math.max(1, y(base) - y(top)));
    context.fillRect(middle - body / 2, Math.min(y(open), y(close)), body, Math.max(1, Math.abs(y(close) - y(open))));
  }
  markLast(paper, last, y);
  if (chosen) {
    context.strokeStyle = color("muted");
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(chosen.middle, 0);
    context.lineTo(chosen.middle, bottom);
    context.stroke();
    context.setLineDash([]);
  }
  return chosen?.candle ?? null;
}

function markLast({ context, width, color }, price, y) {
  const text = rounded(price, 8);
  context.fillStyle = color("accent");
  context.fillRect(width - AXIS + 2, y(price) - TAG / 2, AXIS - 2, TAG);
  context.fillStyle = color("panel");
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillText(text, width - AXIS + 6, y(price));
}

function timeMarks({ since, width: seconds }, first, slots, x) {
  const every = Math.ceil((slots - first) / Math.max(2, Math.floor((x(slots) - x(first)) / 90)));
  const marks = [];
  for (let slot = first; slot < slots; slot += every) {
    const time = (since + slot * seconds) * 1000;
    marks.push([x(slot + 0.5), seconds >= 14400 ? day(time) : minute(time)]);
  }
  return marks;
}

/** A candle in words. */
export function describeCandle(candle) {
  if (!candle) return "";
  const [time, open, high, low, close, volume, trades] = candle;
  const texts = [open, high, low, close].map(grouped);
  return `${dateOf(time)}  open ${texts[0]}  high ${texts[1]}  low ${texts[2]}  close ${texts[3]}  volume ${grouped(volume)}  in ${trades} trades`;
}
