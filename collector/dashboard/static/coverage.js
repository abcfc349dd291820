// The timeline of what was seen, one lane a channel. A moment on it can be chosen.

import { clock, dateOf, day, duration, minute } from "./format.js";

const NAMES = { book: "book", trade: "trades" };

function part(kind, from, to, range, title) {
  const span = document.createElement("span");
  const left = Math.max(0, (from - range.since) / (range.now - range.since));
  const right = Math.min(1, (to - range.since) / (range.now - range.since));
  span.className = kind;
  span.style.left = `${left * 100}%`;
  if (to > from) span.style.width = `${Math.max(0, right - left) * 100}%`;
  if (title) span.title = title;
  return span;
}

function lane(channel, range, at, onChoose) {
  const row = document.createElement("div");
  row.className = "lane";
  const track = document.createElement("div");
  track.className = "track";
  track.role = "img"; // who has no pointer types the time
  track.dataset.channel = channel.channel;
  track.setAttribute("aria-label", `Coverage of ${NAMES[channel.channel]}: ${percent(channel.share)}, ${channel.gaps.length} gaps`);
  const begun = Math.max(range.since, Date.parse(channel.since));
  track.append(part("seen", begun, range.now, range));
  for (const gap of channel.gaps) {
    const from = Date.parse(gap.since), to = gap.until === null ? range.now : Date.parse(gap.until);
    const title = `${dateOf(gap.since)} to ${gap.until === null ? "now" : clock(to)}, ${duration((to - from) / 1000)}: ${gap.reason}`;
    track.append(part("gap", from, to, range, title));
  }
  if (at !== null && at >= range.since) track.append(part("marker", at, at, range));
  track.addEventListener("click", (event) => {
    const box = track.getBoundingClientRect();
    onChoose(range.since + ((event.clientX - box.left) / box.width) * (range.now - range.since));
  });
  const name = document.createElement("span"), share = document.createElement("span");
  name.textContent = NAMES[channel.channel];
  share.textContent = percent(channel.share);
  row.append(name, track, share);
  return row;
}

function axis(range) {
  const row = document.createElement("div");
  row.className = "axis";
  for (let mark = 0; mark <= 4; mark += 1) {
    const time = range.since + ((range.now - range.since) * mark) / 4;
    const span = document.createElement("span");
    span.style.left = `${mark * 25}%`;
    span.textContent = range.now - range.since > 2 * 86400000 ? day(time) : minute(time);
    row.append(span);
  }
  return row;
}

/** A share as a percentage that is 100 only where nothing is missing. */
export function percent(share) {
  if (share === null) return "–";
  if (share === 1) return "100 %";
  const shown = Math.min(share * 100, 99.999);
  return `${shown.toFixed(shown > 99 ? 3 : 1)} %`;
}

/** Draw the lanes of channels over `range` ({since, now}, ms); `onChoose(time)` is called for a moment in it. */
export function showTimeline(channels, range, at, onChoose) {
  const lanes = channels.map((channel) => lane(channel, range, at, onChoose));
  document.getElementById("timeline").replaceChildren(...lanes, axis(range));
}
