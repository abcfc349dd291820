// The ladder, the tape and the list of gaps. Rows are made once and filled again, so that half a second's change is cheap.

import { clockOf, dateOf, duration, grouped } from "./format.js";

const PHONE_LEVELS = 8; // of each side that a phone shows

function cells(row, texts) {
  while (row.cells.length < texts.length) row.insertCell();
  texts.forEach((text, place) => {
    if (row.cells[place].textContent !== text) row.cells[place].firstChild?.nodeType === Node.TEXT_NODE
      ? (row.cells[place].firstChild.data = text)
      : row.cells[place].prepend(text);
  });
}

function fillSide(body, levels, isAsk, largest) {
  let sum = 0;
  const decimals = Math.min(8, Math.max(0, 4 - Math.floor(Math.log10(largest))));
  const rows = levels.map(([price, size], number) => {
    sum += Number(size);
    return { texts: [grouped(price), grouped(size), sum.toFixed(decimals)], share: sum / largest, deep: number >= PHONE_LEVELS };
  });
  if (isAsk) rows.reverse(); // the best ask is next to the best bid
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach(({ texts, share, deep }, place) => {
    const row = body.rows[place] ?? body.insertRow();
    cells(row, texts);
    row.className = deep ? "deep" : "";
    const last = row.cells[2];
    const bar = last.querySelector(".bar") ?? last.appendChild(Object.assign(document.createElement("span"), { className: "bar" }));
    bar.style.width = `${(share * 100).toFixed(1)}%`;
  });
}

const sumOf = (levels) => levels.reduce((sum, [, size]) => sum + Number(size), 0);

/** Show a book, or none. */
export function showLadder(book) {
  const { bids, asks } = book ?? { bids: [], asks: [] };
  const largest = Math.max(sumOf(bids), sumOf(asks)) || 1;
  fillSide(document.getElementById("asks"), asks, true, largest);
  fillSide(document.getElementById("bids"), bids, false, largest);
  const between = document.querySelector("#between td");
  between.textContent = book?.spread ? `spread ${grouped(book.spread)}  ·  middle ${grouped(book.middle)}` : "no book";
}

function tradeRow([, time, side, price, volume, type], isNew) {
  const row = document.createElement("tr");
  if (isNew) row.className = "new";
  row.title = `${side}, ${type}`;
  cells(row, [clockOf(time), grouped(price), grouped(volume)]);
  row.cells[1].className = side === "buy" ? "buy" : "sell";
  return row;
}

/** Show trades, newest first: instead of those that are there, or above them. */
export function showTrades(trades, { isFirst, most }) {
  const body = document.getElementById("trades");
  const rows = trades.map((trade) => tradeRow(trade, !isFirst));
  if (isFirst) body.replaceChildren(...rows);
  else body.prepend(...rows);
  while (body.rows.length > most) body.deleteRow(-1);
}

/** List the gaps of both channels, latest first. */
export function showGaps(channels, now) {
  const gaps = channels.flatMap(({ channel, gaps }) => gaps.map((gap) => ({ channel, ...gap })));
  gaps.sort((one, other) => (one.since < other.since ? 1 : -1));
  const rows = gaps.slice(0, 100).map(({ channel, since, until, reason }) => {
    const row = document.createElement("tr");
    const seconds = ((until === null ? now : Date.parse(until)) - Date.parse(since)) / 1000;
    const end = until === null ? "goes on" : dateOf(until);
    cells(row, [channel === "book" ? "book" : "trades", dateOf(since), end, duration(seconds), reason]);
    return row;
  });
  fill("gap-rows", rows, "none");
}

/** List the processes that collect. */
export function showCollectors(collectors) {
  const rows = collectors.map((collector) => {
    const row = document.createElement("tr");
    const { name, pairs, rows_per_second: rate, waiting_rows: waiting, since } = collector;
    const held = `${pairs.length}${collector.is_available ? "" : ", stopping or without Kraken"}`;
    cells(row, [name, held, grouped(String(rate)), grouped(String(waiting)), dateOf(since)]);
    row.title = pairs.slice(0, 20).join(", ") + (pairs.length > 20 ? ", …" : "");
    return row;
  });
  fill("collector-rows", rows, "none can be seen");
}

function fill(id, rows, otherwise) {
  const body = document.getElementById(id);
  if (rows.length) {
    body.replaceChildren(...rows);
    return;
  }
  const row = document.createElement("tr");
  cells(row, [otherwise]);
  row.className = "none";
  row.cells[0].colSpan = 5;
  body.replaceChildren(row);
}
