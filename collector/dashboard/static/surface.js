// What the charts share: a canvas at the screen's resolution, colours of the style sheet, round numbers on an axis.

export const AXIS = 64; // px at the right, for prices
export const FOOT = 18; // px at the bottom, for times

/** Ready a canvas to be drawn on anew; sizes are in CSS pixels. */
export function surface(canvas) {
  const scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 1;
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  return { context, width, height, color };
}

/** A linear scale from a range of values to one of pixels. */
export const scale = (from, to, low, high) => (value) => low + ((value - from) / (to - from || 1)) * (high - low);

/** About `count` round numbers within a range. */
export function ticks(from, to, count) {
  const rough = (to - from) / count;
  if (!(rough > 0)) return [from];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let value = Math.ceil(from / step) * step; value <= to + step * 1e-9; value += step) found.push(value);
  return found;
}

/** Lines across, with their numbers at the right. */
export function valueAxis({ context, width, color }, values, y, write) {
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (const value of values) {
    context.strokeStyle = color("line");
    context.beginPath();
    context.moveTo(0, Math.round(y(value)) + 0.5);
    context.lineTo(width - AXIS, Math.round(y(value)) + 0.5);
    context.stroke();
    context.fillStyle = color("muted");
    context.fillText(write(value), width - AXIS + 6, y(value));
  }
}

/** Texts along the foot, none of which reaches over an edge. */
export function footAxis({ context, width, height, color }, marks, right = AXIS) {
  context.fillStyle = color("muted");
  context.textBaseline = "bottom";
  for (const [x, text] of marks) {
    const half = context.measureText(text).width / 2;
    if (x - half < 0 || x + half > width - right) continue;
    context.textAlign = "center";
    context.fillText(text, x, height - 1);
  }
}

/** Say why there is nothing to see. */
export function tellEmpty({ context, width, height, color }, text) {
  context.fillStyle = color("muted");
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, width / 2, height / 2);
}
