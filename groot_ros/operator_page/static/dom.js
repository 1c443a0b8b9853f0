// SPDX-License-Identifier: Apache-2.0
// Helpers that put texts into the page. Texts are always text, never markup.

export const SIGNS = { good: '●', warn: '▲', bad: '■', idle: '○' };
export const WORDS = { good: 'ok', warn: 'check', bad: 'bad', idle: 'idle' };
export const LEVEL_OF_VERDICT = { pass: 'good', warn: 'warn', fail: 'bad' };

export const byId = (id) => document.getElementById(id);

export function put(id, text) {
  const element = byId(id);
  const shown = String(text ?? '–');
  if (element.textContent !== shown) element.textContent = shown;
}

export function setLevel(id, level) {
  byId(id).dataset.level = level;
}

// Fills a list with one item for each text; `level` gives its sign.
export function putList(id, texts, level) {
  const list = byId(id);
  const wanted = JSON.stringify([texts, level]);
  if (list.dataset.shown === wanted) return;
  list.dataset.shown = wanted;
  list.replaceChildren(...texts.map((text) => item(text, level)));
}

function item(text, level) {
  const line = document.createElement('li');
  line.dataset.level = level;
  line.textContent = `${SIGNS[level]} ${text}`;
  return line;
}

// Makes the rows of a table equal to `rows`, lists of cells: a text, or {text, level, number}.
export function putRows(id, rows) {
  const body = document.querySelector(`#${id} tbody`);
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, k) => putRow(body.rows[k] ?? body.insertRow(), cells));
}

function putRow(row, cells) {
  while (row.cells.length > cells.length) row.deleteCell(-1);
  cells.forEach((cell, k) => putCell(row.cells[k] ?? row.insertCell(), cell));
}

function putCell(place, cell) {
  const { text, level = '', number = false } = typeof cell === 'object' && cell !== null ? cell : { text: cell };
  const shown = String(text ?? '–');
  if (place.textContent !== shown) place.textContent = shown;
  place.dataset.level = level;
  place.classList.toggle('number', number);
}

export function number(value) {
  return { text: value, number: true };
}

export function button(text, key, onClick) {
  const made = document.createElement('button');
  made.textContent = text;
  if (key) {
    const mark = document.createElement('kbd');
    mark.textContent = key.toUpperCase();
    made.append(' ', mark);
    made.dataset.key = key;
  }
  made.addEventListener('click', onClick);
  return made;
}
