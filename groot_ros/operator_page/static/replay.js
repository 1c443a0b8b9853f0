// SPDX-License-Identifier: Apache-2.0
// Replays one episode: its videos, and its state as curves, on the time line of its rows.

import { byId, SIGNS } from './dom.js';

const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#b0578d', '#a07400', '#56b4e9', '#1c2430'];
const BANDS = { fail: 'rgb(163 18 31 / 22%)', warn: 'rgb(199 119 0 / 25%)' };
const MAX_MOMENTS = 6;
const MAX_DRIFT_S = 0.12;
const MARGIN_PX = 4;

export class Replay {
  constructor() {
    this.episode = null;
    this.videos = [];
    this.panels = [];
    byId('play').addEventListener('click', () => this.toggle());
    byId('replay-time').addEventListener('input', (event) => this.seek(Number(event.target.value) / this.episode.fps));
    addEventListener('resize', () => this.draw());
  }

  clear() {
    this.pause();
    this.episode = null;
    this.videos = [];
    this.panels = [];
    for (const id of ['replay-videos', 'replay-panels', 'replay-reasons']) byId(id).replaceChildren();
    byId('replay-clock').textContent = '0.00 s';
    byId('replay-time').max = '0';
  }

  show(episode) {
    this.clear();
    this.episode = episode;
    this.timeS = 0;
    byId('play').disabled = false;
    byId('replay-time').max = String(Math.max(episode.rows - 1, 0));
    this.videos = episode.cameras.map((camera, k) => makeVideo(episode, camera, k));
    byId('replay-videos').replaceChildren(...this.videos.map((video) => video.parentElement));
    this.panels = episode.panels.map((panel) => this.makePanel(panel));
    byId('replay-panels').replaceChildren(...this.panels.map((panel) => panel.place));
    byId('replay-reasons').replaceChildren(...this.reasonLines());
    this.seek(0);
  }

  get lengthS() {
    return Math.max(this.episode.rows - 1, 1) / this.episode.fps;
  }

  reasonLines() {
    if (!this.episode.reasons.length) return [line('good', 'all checks passed')];
    return this.episode.reasons.map((reason) => {
      const made = line(reason.level === 'fail' ? 'bad' : 'warn', reason.text);
      for (const [beginS] of reason.moments.slice(0, MAX_MOMENTS)) made.append(this.momentButton(beginS));
      const more = reason.moments.length - MAX_MOMENTS;
      if (more > 0) made.append(` and ${more} more`);
      return made;
    });
  }

  momentButton(beginS) {
    const button = document.createElement('button');
    button.textContent = `${beginS.toFixed(2)} s`;
    button.addEventListener('click', () => {
      this.pause();
      this.seek(beginS);
    });
    return button;
  }

  makePanel(content) {
    const place = document.createElement('div');
    place.className = 'panel';
    const title = document.createElement('p');
    title.textContent = content.unit ? `${content.name}, ${content.unit}` : content.name;
    content.series.forEach((series, k) => {
      const name = document.createElement('i');
      name.textContent = series.name;
      name.style.color = COLOURS[k % COLOURS.length];
      title.append(name);
    });
    const canvas = document.createElement('canvas');
    canvas.setAttribute('aria-label', `${content.name} over time`);
    canvas.addEventListener('pointerdown', (event) => this.seekAt(event, canvas));
    canvas.addEventListener('pointermove', (event) => event.buttons && this.seekAt(event, canvas));
    place.append(title, canvas);
    return { place, canvas, content };
  }

  seekAt(event, canvas) {
    const box = canvas.getBoundingClientRect();
    const share = (event.clientX - box.left - MARGIN_PX) / (box.width - 2 * MARGIN_PX);
    this.seek(Math.min(Math.max(share, 0), 1) * this.lengthS);
  }

  seek(timeS) {
    this.timeS = timeS;
    // Half a row later, so that rounding never shows the row before.
    const shownS = (Math.round(timeS * this.episode.fps) + 0.5) / this.episode.fps;
    for (const video of this.videos) video.currentTime = shownS;
    this.showTime();
  }

  showTime() {
    byId('replay-time').value = String(Math.round(this.timeS * this.episode.fps));
    byId('replay-clock').textContent = `${this.timeS.toFixed(2)} s`;
    this.draw();
  }

  get isPlaying() {
    return Boolean(this.videos[0] && !this.videos[0].paused);
  }

  toggle() {
    if (!this.episode) return;
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    if (this.timeS >= this.lengthS - 0.5 / this.episode.fps) this.seek(0);
    for (const video of this.videos) video.play();
    byId('play').firstChild.textContent = 'Pause ';
    requestAnimationFrame(() => this.follow());
  }

  pause() {
    for (const video of this.videos) video.pause();
    byId('play').firstChild.textContent = 'Play ';
  }

  // The first video leads; others that fall behind are set to its time.
  follow() {
    if (!this.episode || !this.isPlaying) {
      byId('play').firstChild.textContent = 'Play ';
      return;
    }
    const leadS = this.videos[0].currentTime;
    for (const video of this.videos.slice(1)) {
      if (Math.abs(video.currentTime - leadS) > MAX_DRIFT_S) video.currentTime = leadS;
    }
    this.timeS = Math.min(Math.max(leadS - 0.5 / this.episode.fps, 0), this.lengthS);
    this.showTime();
    requestAnimationFrame(() => this.follow());
  }

  draw() {
    if (!this.episode) return;
    for (const panel of this.panels) this.drawPanel(panel);
  }

  drawPanel({ canvas, content }) {
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext('2d');
    pen.scale(scale, scale);
    const x = (timeS) => MARGIN_PX + (timeS / this.lengthS) * (width - 2 * MARGIN_PX);
    this.drawMoments(pen, x, height);
    const [low, high] = rangeOf(content.series);
    const y = (value) => height - MARGIN_PX - ((value - low) / (high - low)) * (height - 2 * MARGIN_PX);
    content.series.forEach((series, k) => {
      drawCurve(pen, series.values, (j) => x((j * content.step) / this.episode.fps), y, COLOURS[k % COLOURS.length]);
    });
    drawRange(pen, low, high, height);
    drawLine(pen, x(this.timeS), height, '#1c2430', []);
  }

  drawMoments(pen, x, height) {
    for (const reason of this.episode.reasons) {
      pen.fillStyle = BANDS[reason.level];
      for (const [beginS, endS] of reason.moments) pen.fillRect(x(beginS), 0, Math.max(x(endS) - x(beginS), 2), height);
    }
    for (const pauseS of this.episode.pauses_s) drawLine(pen, x(pauseS), height, '#55606e', [3, 3]);
  }
}

function makeVideo(episode, camera, index) {
  const figure = document.createElement('figure');
  const video = document.createElement('video');
  video.src = `/episodes/${episode.episode}/video/${index}?rows=${episode.rows}`;
  video.width = camera.width; // keeps its place while it is read
  video.height = camera.height;
  video.muted = true;
  video.playsInline = true;
  video.preload = 'auto';
  const caption = document.createElement('figcaption');
  caption.textContent = camera.name;
  video.addEventListener('error', () => { caption.textContent = `${camera.name}: its video cannot be shown`; });
  figure.append(video, caption);
  return video;
}

function line(level, text) {
  const made = document.createElement('li');
  made.dataset.level = level;
  made.textContent = `${SIGNS[level]} ${text}`;
  return made;
}

// The lowest and the highest number of all curves; never the same one.
function rangeOf(series) {
  let low = Infinity;
  let high = -Infinity;
  for (const { values } of series) {
    for (const value of values) {
      if (value === null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (!(low <= high)) return [0, 1];
  return high - low > 1e-6 ? [low, high] : [low - 0.5, high + 0.5];
}

function drawCurve(pen, values, x, y, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 1.6;
  pen.beginPath();
  let isOpen = false;
  values.forEach((value, k) => {
    if (value === null) {
      isOpen = false;
      return;
    }
    if (isOpen) pen.lineTo(x(k), y(value));
    else pen.moveTo(x(k), y(value));
    isOpen = true;
  });
  pen.stroke();
}

function drawRange(pen, low, high, height) {
  pen.font = '11px system-ui, sans-serif';
  pen.fillStyle = '#55606e';
  pen.fillText(String(Number(high.toPrecision(3))), MARGIN_PX + 2, 12);
  pen.fillText(String(Number(low.toPrecision(3))), MARGIN_PX + 2, height - MARGIN_PX - 1);
}

function drawLine(pen, x, height, colour, dash) {
  pen.strokeStyle = colour;
  pen.lineWidth = 1;
  pen.setLineDash(dash);
  pen.beginPath();
  pen.moveTo(x, 0);
  pen.lineTo(x, height);
  pen.stroke();
  pen.setLineDash([]);
}
