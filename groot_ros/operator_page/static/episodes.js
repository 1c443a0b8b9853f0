// SPDX-License-Identifier: Apache-2.0
// The table of saved episodes, and what may be done with the one that is chosen.

import { byId, LEVEL_OF_VERDICT, put, setLevel, SIGNS } from './dom.js';
import { Replay } from './replay.js';

const LEVEL_OF_OUTCOME = { success: 'good', failure: 'warn', excluded: 'idle', interrupted: 'warn' };
const LABELS = ['success', 'failure', 'excluded'];

export class Episodes {
  // `order` sends an order and gives its answer; `confirm` asks the person.
  constructor(order, confirm) {
    this.order = order;
    this.confirm = confirm;
    this.replay = new Replay();
    this.rows = [];
    this.places = new Map();
    this.chosen = '';
    this.seen = '';
    this.mine = false;
    this.listen();
  }

  listen() {
    byId('episodes-filter').addEventListener('input', () => this.show());
    byId('earlier').addEventListener('click', () => this.step(-1));
    byId('later').addEventListener('click', () => this.step(1));
    for (const outcome of LABELS) byId(`label-${outcome}`).addEventListener('click', () => this.relabel({ outcome }));
    byId('delete').addEventListener('click', () => this.remove());
    byId('replay-notes').addEventListener('keydown', (event) => {
      if (event.key !== 'Enter') return;
      this.relabel({ notes: event.target.value });
      event.target.blur();
    });
  }

  // Each state of the recorder: a saved episode makes the table new, while it is shown.
  follow(recorder, mine) {
    this.mine = mine && Boolean(recorder) && !recorder.lost;
    const seen = recorder && !recorder.lost ? `${recorder.saved} ${recorder.state}` : this.seen;
    const isNew = seen !== this.seen;
    this.seen = seen;
    if (isNew && !byId('episodes').hidden) this.load();
    this.offer();
  }

  open() {
    return this.load();
  }

  pause() {
    this.replay.pause();
  }

  async load() {
    try {
      const answer = await fetch('/episodes');
      if (!answer.ok) throw new Error(await answer.text());
      this.rows = await answer.json();
    } catch (error) {
      put('episodes-facts', `The episodes cannot be listed: ${error.message}`);
      return;
    }
    if (this.chosen && !this.rows.some((row) => row.name === this.chosen)) this.choose('');
    this.show();
  }

  show() {
    const words = byId('episodes-filter').value.toLowerCase().split(/\s+/).filter(Boolean);
    this.shown = this.rows.filter((row) => words.every((word) => textOf(row).includes(word)));
    put('episodes-facts', describe(this.rows, this.shown.length));
    const body = document.querySelector('#episode-table tbody');
    const places = new Map();
    for (const row of this.shown) places.set(keyOf(row), this.places.get(keyOf(row)) ?? this.makePlace(row));
    this.places = places;
    this.shown.forEach((row) => this.fill(places.get(keyOf(row)), row));
    body.replaceChildren(...places.values());
    this.offer();
  }

  makePlace(row) {
    const place = document.createElement('tr');
    const image = document.createElement('img');
    image.loading = 'lazy';
    image.alt = '';
    image.width = 80;
    image.height = 60;
    image.src = `/episodes/${row.name}/thumbnail`;
    place.insertCell().append(image);
    for (let k = 0; k < 5; k++) place.insertCell();
    place.cells[5].className = 'number';
    place.addEventListener('click', () => this.choose(row.name));
    return place;
  }

  fill(place, row) {
    const outcome = LEVEL_OF_OUTCOME[row.outcome] ?? 'idle';
    const verdict = LEVEL_OF_VERDICT[row.verdict] ?? 'idle';
    const texts = [row.name.replace('episode_', ''), row.task, `${SIGNS[outcome]} ${row.outcome}`,
      `${SIGNS[verdict]} ${row.verdict}`, row.duration_s.toFixed(1)];
    texts.forEach((text, k) => { place.cells[k + 1].textContent = text; });
    place.cells[3].dataset.level = outcome;
    place.cells[4].dataset.level = verdict;
    place.setAttribute('aria-selected', String(row.name === this.chosen));
  }

  async choose(name) {
    this.chosen = name ?? '';
    for (const [key, place] of this.places) {
      place.setAttribute('aria-selected', String(key.startsWith(`${this.chosen} `)));
    }
    this.offer();
    if (!this.chosen) {
      this.replay.clear();
      put('replay-title', 'No episode is chosen');
      for (const id of ['replay-task', 'replay-facts']) put(id, '');
      setLevel('replay', 'idle');
      return;
    }
    put('replay-title', `${this.chosen} is being read`);
    await this.read(this.chosen);
  }

  async read(name) {
    try {
      const answer = await fetch(`/episodes/${name}/replay`);
      if (!answer.ok) throw new Error(await answer.text());
      const episode = await answer.json();
      if (name === this.chosen) this.showChosen(episode);
    } catch (error) {
      if (name !== this.chosen) return;
      this.replay.clear();
      put('replay-title', name);
      put('replay-facts', `It cannot be shown: ${error.message}`);
      setLevel('replay', 'bad');
    }
  }

  showChosen(episode) {
    this.showTexts(episode);
    this.replay.show(episode);
  }

  showTexts(episode) {
    const level = LEVEL_OF_VERDICT[episode.verdict] ?? 'idle';
    put('replay-title', `${episode.episode}: ${episode.outcome}, ${SIGNS[level]} ${episode.verdict}`);
    put('replay-task', episode.task);
    put('replay-facts', `${episode.rows} rows at ${episode.fps} Hz, ${(episode.rows / episode.fps).toFixed(2)} s`);
    byId('replay-notes').value = episode.notes;
    setLevel('replay', level);
  }

  step(by) {
    if (!this.shown?.length) return;
    const index = this.shown.findIndex((row) => row.name === this.chosen);
    const next = index < 0 ? 0 : Math.min(Math.max(index + by, 0), this.shown.length - 1);
    this.choose(this.shown[next].name);
    this.places.get(keyOf(this.shown[next]))?.scrollIntoView({ block: 'nearest' });
  }

  async relabel(values) {
    if (!this.chosen) return;
    const name = this.chosen;
    const answer = await this.order('relabel_episode', { episode: name, ...values });
    await this.load();
    if (answer.success && name === this.chosen) await this.refreshTexts(name);
  }

  async refreshTexts(name) {
    const row = this.rows.find((each) => each.name === name);
    if (row && this.replay.episode) this.showTexts({ ...this.replay.episode, outcome: row.outcome, notes: row.notes });
  }

  async remove() {
    const name = this.chosen;
    if (!(await this.confirm('Delete the episode?', `${name} is deleted for good, with all that it holds.`, 'Delete'))) return;
    await this.order('delete_episode', { episode: name });
    await this.load();
  }

  offer() {
    const may = this.mine && Boolean(this.chosen);
    for (const outcome of LABELS) byId(`label-${outcome}`).disabled = !may;
    byId('delete').disabled = !may;
    byId('replay-notes').disabled = !may;
    byId('play').disabled = !this.replay.episode;
    byId('earlier').disabled = byId('later').disabled = !this.shown?.length;
    const row = this.rows.find((each) => each.name === this.chosen);
    const report = byId('report');
    report.hidden = !row?.has_report;
    if (row) report.href = `/episodes/${row.name}/report`;
  }
}

const keyOf = (row) => `${row.name} ${row.rows} ${row.task}`;
const textOf = (row) => `${row.name} ${row.task} ${row.outcome} ${row.verdict} ${row.notes}`.toLowerCase();

function describe(rows, shown) {
  const counts = new Map();
  for (const row of rows) counts.set(row.outcome, (counts.get(row.outcome) ?? 0) + 1);
  const outcomes = [...counts].map(([outcome, count]) => `${count} ${outcome}`).join(', ');
  const usable = rows.filter((row) => row.is_usable);
  const minutes = usable.reduce((sum, row) => sum + row.duration_s, 0) / 60;
  if (!rows.length) return 'No episode is saved yet.';
  return `${shown} of ${rows.length} shown; ${outcomes}; ${usable.length} are usable, ${minutes.toFixed(1)} min`;
}
