// SPDX-License-Identifier: Apache-2.0
// Live images: each says how old it is, and is covered when no newer one comes.

const STALE_S = 0.7;
const RETRY_MS = 1000;
const HEADER_BYTES = 16;

export class Cameras {
  constructor(place) {
    this.place = place;
    this.views = [];
    this.socket = null;
    setInterval(() => this.showAges(), 200);
  }

  // Makes a place of the right size for each camera, once.
  setUp(cameras) {
    if (this.views.length || !cameras.length) return;
    for (const camera of cameras) this.views.push(this.makeView(camera));
    this.open();
  }

  makeView(camera) {
    const figure = document.createElement('figure');
    const canvas = document.createElement('canvas');
    canvas.width = camera.width;
    canvas.height = camera.height;
    canvas.setAttribute('aria-label', `Live image of ${camera.topic}`);
    const caption = document.createElement('figcaption');
    caption.textContent = `${camera.topic}: no image yet`;
    figure.append(canvas, caption);
    figure.classList.add('stale');
    this.place.append(figure);
    return { topic: camera.topic, figure, canvas, caption, arrivedMs: -Infinity, ageS: 0, problem: '' };
  }

  open() {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    this.socket = new WebSocket(`${scheme}://${location.host}/cameras`);
    this.socket.binaryType = 'arraybuffer';
    this.socket.onmessage = (event) => this.take(event.data);
    this.socket.onclose = () => setTimeout(() => this.open(), RETRY_MS);
  }

  take(data) {
    if (typeof data === 'string') {
      const note = JSON.parse(data);
      this.views[note.camera].problem = note.problem;
      return;
    }
    this.draw(data);
  }

  async draw(data) {
    const header = new DataView(data);
    const index = header.getUint8(0);
    const view = this.views[index];
    const image = await createImageBitmap(new Blob([new Uint8Array(data, HEADER_BYTES)], { type: 'image/jpeg' }));
    view.canvas.getContext('2d').drawImage(image, 0, 0, view.canvas.width, view.canvas.height);
    image.close();
    view.ageS = header.getFloat32(4, true);
    view.arrivedMs = performance.now();
    view.problem = '';
    this.socket.send(String(index));
  }

  showAges() {
    for (const view of this.views) {
      const silentS = (performance.now() - view.arrivedMs) / 1000;
      const isStale = !(silentS < STALE_S);
      view.figure.classList.toggle('stale', isStale);
      view.caption.textContent = `${view.topic}: ${this.describe(view, silentS, isStale)}`;
    }
  }

  describe(view, silentS, isStale) {
    if (view.problem) return view.problem;
    if (!isStale) return `${Math.round(1000 * view.ageS)} ms after exposure`;
    return Number.isFinite(silentS) ? `NO IMAGE for ${silentS.toFixed(1)} s` : 'NO IMAGE yet';
  }
}
