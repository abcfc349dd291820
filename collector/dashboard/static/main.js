// The page: which pair, which time, and what is asked of the server for it.

import { describeCandle, drawCandles } from "./candles.js";
import { percent, showTimeline } from "./coverage.js";
import { clockOf, dateOf, grouped, inputValue, readTime } from "./format.js";
import { drawDepth, drawSamples } from "./lines.js";
import { NO_ANSWER, ask, repeat, stop } from "./questions.js";
import { openStream } from "./stream.js";
import { showCollectors, showGaps, showLadder, showTrades } from "./tables.js";

const WIDTHS = ["1m", "5m", "15m", "1h", "4h", "1d"];
const RANGES = { "1 h": 1, "6 h": 6, "24 h": 24, "7 d": 168 };
const TAPE = 60;
const HISTORY = 600;
const COVERAGE_EVERY = 5000; // ms
const RATE_SECONDS = 10;

const byId = (id) => document.getElementById(id);
const address = new URLSearchParams(location.search);
const state = {
  pair: address.get("pair"), at: readTime(address.get("at") ?? ""), width: "1m", hours: null,
  book: null, samples: [], candles: null,
};
let closeStream = () => {};
const pointers = { candles: null, depth: null };

function show(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function showConnection(kind, text) {
  byId("connection").dataset.state = kind;
  show("connection", text);
  state.connection = kind;
  dimWhatIsOld();
}

/** What is shown as the present, and is none, is dimmed. */
function dimWhatIsOld() {
  const isOld = state.connection === "lost" || (!state.at && byId("health").dataset.state !== "live");
  document.body.classList.toggle("old", isOld);
}

function showHealth({ state: word, text }) {
  byId("health").dataset.state = word;
  show("health-text", text);
  dimWhatIsOld();
}

function showNotice(text) {
  byId("book-notice").hidden = !text;
  show("book-notice", text ?? "");
}

function showBook(book) {
  state.book = book;
  showLadder(book);
  show("book-time", book ? `${dateOf(book.time)} UTC` : "");
  show("middle", book?.middle ? grouped(book.middle) : "–");
  show("spread", book?.spread ? grouped(book.spread) : "–");
  show("levels", book ? `${book.levels[0]}, ${book.levels[1]}` : "–");
  document.title = book?.middle ? `${grouped(book.middle)} ${state.pair}` : `${state.pair} – Kraken collector`;
  drawBook();
}

function showLastTrade(trades) {
  const trade = trades[0];
  if (!trade) return;
  show("last-trade", grouped(trade[3]));
  byId("last-trade").className = trade[2];
  show("tape-time", `last ${clockOf(trade[1])}`);
}

function takeSamples(samples, isFirst) {
  state.samples = (isFirst ? samples : [...state.samples, ...samples]).slice(-HISTORY);
  const last = state.samples.slice(-RATE_SECONDS);
  const updates = last.reduce((sum, sample) => sum + sample[2], 0);
  show("rate", last.length ? `${(updates / last.length).toFixed(1)} /s` : "–");
  drawActivity();
}

function takeUpdate(update) {
  showHealth(update.health);
  const isFirst = update.is_first ?? false;
  if (update.book || isFirst || update.health.state === "broken") showBook(update.book ?? null);
  const trades = update.trades ?? [];
  if (isFirst || trades.length) {
    showTrades(trades, { isFirst, most: TAPE });
    showLastTrade(trades);
  }
  takeSamples(update.samples ?? [], isFirst);
}

const drawBook = () => show("depth-readout", drawDepth(byId("depth"), state.book, pointers.depth) || "\u00a0");
const drawActivity = () => {
  drawSamples(byId("spreads"), state.samples, 1, false);
  drawSamples(byId("rates"), state.samples, 2, true);
};
function drawPrices() {
  if (!state.candles) return;
  const chosen = drawCandles(byId("candles"), state.candles, pointers.candles);
  show("candle-readout", describeCandle(chosen ?? state.candles.candles.at(-1)) || "\u00a0");
}
function drawAll() {
  drawBook();
  drawActivity();
  drawPrices();
}

async function askCandles(stillWanted) {
  const found = await ask("/api/candles", { pair: state.pair, width: state.width, ...(state.at && { until: state.at }) });
  if (!stillWanted()) return 0;
  state.candles = found;
  drawPrices();
  return state.at ? 3600000 : Math.max(2, found.fresh_for) * 1000;
}

async function askCoverage(stillWanted) {
  const hours = state.hours ?? 24;
  const { since, until, channels } = await ask("/api/coverage", { pair: state.pair, hours });
  if (!stillWanted()) return 0;
  const now = Date.parse(until); // by the server's clock
  if (state.hours === null && channels.length) {
    // Until somebody chooses: what shows the whole of a young collection.
    const age = (now - Math.min(...channels.map((channel) => Date.parse(channel.since)))) / 3600000;
    chooseHours([1, 6].find((some) => some > age) ?? 24);
    return 0;
  }
  const range = { since: Date.parse(since), now };
  showTimeline(channels, range, state.at && Date.parse(state.at), (time) => choose({ at: `${inputValue(time)}Z` }));
  showGaps(channels, now);
  const book = channels.find(({ channel }) => channel === "book");
  show("share", book ? percent(book.share) : "–");
  return COVERAGE_EVERY;
}

async function askCollectors() {
  showCollectors(await ask("/api/collectors", {}));
  return COVERAGE_EVERY;
}

async function askPast(stillWanted) {
  showConnection("past", "looking …");
  const past = await ask("/api/past", { pair: state.pair, at: state.at });
  if (!stillWanted()) return 0;
  showConnection("past", "past");
  showHealth({ state: past.book ? "past" : "ended", text: `As it was at ${dateOf(past.book?.time ?? state.at)} UTC.` });
  showNotice(past.note);
  showBook(past.book);
  showTrades(past.trades, { isFirst: true, most: TAPE });
  showLastTrade(past.trades);
  return 3600000;
}

function press(id, value) {
  for (const button of byId(id).children) button.setAttribute("aria-pressed", String(button.value === String(value)));
}

/** Show another pair or another time. */
function choose(change) {
  Object.assign(state, change);
  closeStream();
  stop(askPast);
  const query = new URLSearchParams({ pair: state.pair, ...(state.at && { at: state.at }) });
  history.replaceState(null, "", `?${query}`);
  byId("pair").value = state.pair;
  byId("live").setAttribute("aria-pressed", String(!state.at));
  byId("at").value = inputValue(state.at ? Date.parse(state.at) : Date.now());
  byId("activity-panel").hidden = Boolean(state.at);
  document.body.classList.toggle("past", Boolean(state.at));
  showNotice(null);
  show("rate", "–");
  if (state.at) repeat(askPast, showNotice);
  else openLive();
  repeatCandles();
  repeatCoverage();
}

function openLive() {
  showConnection("wait", "connecting …");
  closeStream = openStream(state.pair, takeUpdate, showStream);
}

async function showStream(kind, text) {
  showConnection(kind, text);
  if (kind !== "lost") return;
  try {
    await ask("/api/pairs", {}); // a stream that is refused does not say why
  } catch (error) {
    if (error.status) showHealth({ state: "outage", text: error.message });
  }
}

const repeatCandles = () => repeat(askCandles, (text) => show("candle-readout", text));
const repeatCoverage = () => repeat(askCoverage, () => show("share", "–"));

function chooseWidth(width) {
  state.width = width;
  press("widths", width);
  repeatCandles();
}

function chooseHours(hours) {
  state.hours = hours;
  press("ranges", hours);
  repeatCoverage();
}

function addChoices(id, entries, onChoose) {
  byId(id).append(...entries.map(([text, value]) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text, value });
    button.addEventListener("click", () => onChoose(value));
    return button;
  }));
}

function follow(id, draw) {
  byId(id).addEventListener("pointermove", (event) => { pointers[id] = event.offsetX; draw(); });
  byId(id).addEventListener("pointerleave", () => { pointers[id] = null; draw(); });
}

async function start() {
  addChoices("widths", WIDTHS.map((width) => [width, width]), chooseWidth);
  addChoices("ranges", Object.entries(RANGES), chooseHours);
  press("widths", state.width);
  byId("pair").addEventListener("change", (event) => choose({ pair: event.target.value }));
  byId("live").addEventListener("click", () => choose({ at: null }));
  byId("when").addEventListener("submit", (event) => {
    event.preventDefault();
    choose({ at: readTime(byId("at").value) });
  });
  follow("candles", drawPrices);
  follow("depth", drawBook);
  document.addEventListener("visibilitychange", () => {
    // A browser opens six lines to a host, all pages together: one that nobody sees gives its own up.
    if (state.pair === null || state.at) return;
    closeStream();
    if (!document.hidden) openLive();
  });
  new ResizeObserver(drawAll).observe(document.body);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  repeat(askCollectors, () => showCollectors([]));
  for (;;) {
    try {
      const { pairs, origin } = await ask("/api/pairs", {});
      if (origin !== null) {
        byId("origin").hidden = false;
        show("origin", `feed: ${origin}`);
      }
      if (pairs.length) {
        byId("pair").append(...pairs.map((pair) => new Option(pair, pair)));
        choose({ pair: pairs.includes(state.pair) ? state.pair : pairs[0] });
        return;
      }
      showHealth({ state: "never", text: "Nothing has been collected yet: this page waits for it." });
    } catch (error) {
      if (error.status === undefined) throw error;
      showHealth({ state: "outage", text: error.message });
    }
    await new Promise((resolve) => setTimeout(resolve, NO_ANSWER));
  }
}

start();
