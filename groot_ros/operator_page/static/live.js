// SPDX-License-Identifier: Apache-2.0
// The connection to the page's node: states come in, orders go out. Silence for 0.8 s counts as lost.

const LOST_MS = 800;
const RETRY_MS = 500;
const CHECK_MS = 100;
const OPENED_AGAIN = 4001;

function clientName() {
  let name = sessionStorage.getItem('client');
  if (!name) {
    name = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
    sessionStorage.setItem('client', name);
  }
  return name;
}

export class Live {
  // `onState` gets each state, or null once it is lost; `onLost` the silence in s and a reason, or 0 and ''.
  constructor(onState, onLost) {
    this.onState = onState;
    this.onLost = onLost;
    this.waiting = new Map();
    this.number = 0;
    this.heardMs = performance.now();
    this.isLost = false;
    this.replaced = false;
    this.open();
    setInterval(() => this.check(), CHECK_MS);
    addEventListener('pagehide', () => this.socket.close());
  }

  open() {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    this.socket = new WebSocket(`${scheme}://${location.host}/live?client=${clientName()}`);
    this.socket.onmessage = (event) => this.take(JSON.parse(event.data));
    this.socket.onclose = (event) => this.closed(event);
  }

  take(message) {
    if (message.kind === 'answer') {
      this.settle(message);
      return;
    }
    this.heardMs = performance.now();
    if (this.isLost) {
      this.isLost = false;
      this.onLost(0, '');
    }
    this.onState(message);
  }

  settle(answer) {
    const settle = this.waiting.get(answer.number);
    this.waiting.delete(answer.number);
    if (settle) settle(answer);
  }

  closed(event) {
    this.dropWaiting();
    if (event.code === OPENED_AGAIN) {
      this.replaced = true;
      return;
    }
    setTimeout(() => this.open(), RETRY_MS);
  }

  dropWaiting() {
    for (const number of [...this.waiting.keys()]) {
      this.settle({ number, success: false, message: 'The connection was lost before the answer came.' });
    }
  }

  check() {
    const silentMs = performance.now() - this.heardMs;
    if (silentMs <= LOST_MS) return;
    if (!this.isLost) {
      this.isLost = true;
      this.onState(null);
    }
    const reason = this.replaced ? 'This page was opened again in another tab: use that one, or load this one again.' : '';
    this.onLost(silentMs / 1000, reason);
  }

  // The answer to an order: {success, message}.
  send(order, values = {}) {
    if (this.socket.readyState !== WebSocket.OPEN) {
      return Promise.resolve({ success: false, message: 'There is no connection: nothing was sent.' });
    }
    const number = ++this.number;
    this.socket.send(JSON.stringify({ number, order, ...values }));
    return new Promise((resolve) => this.waiting.set(number, resolve));
  }
}
