// Numbers and times as a person reads them. Prices and sizes keep the digits that the collector stored.

const CLOCK = { timeZone: "UTC", hour12: false, hour: "2-digit", minute: "2-digit", second: "2-digit" };
const clockFormat = new Intl.DateTimeFormat("en-GB", CLOCK);
const minuteFormat = new Intl.DateTimeFormat("en-GB", { ...CLOCK, second: undefined });
const dayFormat = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "2-digit", month: "short" });

export const clock = (time) => clockFormat.format(time);
export const minute = (time) => minuteFormat.format(time);
export const day = (time) => dayFormat.format(time);

/** "2026-08-24T22:21:58.345080Z" as "22:21:58.345". */
export const clockOf = (text) => text.slice(11, 23);

/** The same with its day, to the second. */
export const dateOf = (text) => `${text.slice(0, 10)} ${text.slice(11, 19)}`;

/** Digits with a thin space after each three before the point; no digit is lost. */
export function grouped(digits) {
  const [whole, fraction] = digits.split(".");
  const head = whole.replace(/\B(?=(\d{3})+$)/g, "\u2009");
  return fraction === undefined ? head : `${head}.${fraction}`;
}

/** A number for an axis or a sum, rounded to so many significant digits. */
export function rounded(value, significant = 5) {
  const decimals = value === 0 ? 0 : significant - 1 - Math.floor(Math.log10(Math.abs(value)));
  return value.toLocaleString("en", { maximumFractionDigits: Math.min(12, Math.max(0, decimals)) });
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.round((seconds % 86400) / 3600)} h`;
}

/** What datetime-local takes for a time. */
export const inputValue = (time) => new Date(time).toISOString().slice(0, 19);

/** A time as the server takes it, from one that is UTC where it names no zone; null where it is none. */
export function readTime(text) {
  const time = Date.parse(/(Z|[+-]\d\d:?\d\d)$/.test(text) ? text : `${text}Z`);
  return Number.isNaN(time) ? null : new Date(time).toISOString();
}
