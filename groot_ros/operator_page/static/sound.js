// SPDX-License-Identifier: Apache-2.0
// Short tones for start, warning and verdict: an operator watches the arm, not a screen.

const TONES = { start: [660, 880], pass: [880, 1175], warn: [587, 587], fail: [330, 262], stop: [262] };
let context = null;

export function switchSound(on) {
  if (on) context = context ?? new AudioContext();
  else if (context) context.close().then(() => (context = null));
}

export function play(name) {
  if (!context) return;
  (TONES[name] ?? []).forEach((hertz, k) => tone(hertz, context.currentTime + 0.16 * k));
}

function tone(hertz, at) {
  const oscillator = context.createOscillator();
  const gain = context.createGain();
  oscillator.frequency.value = hertz;
  gain.gain.setValueAtTime(0.15, at);
  gain.gain.exponentialRampToValueAtTime(0.001, at + 0.15);
  oscillator.connect(gain).connect(context.destination);
  oscillator.start(at);
  oscillator.stop(at + 0.16);
}
