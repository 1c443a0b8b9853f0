// SPDX-License-Identifier: Apache-2.0
// The operator's page: keys, buttons and tabs. What it shows comes from the nodes; it decides nothing.

import { Cameras } from './cameras.js';
import { offer, showArm, showRecorder } from './collect.js';
import { byId, put } from './dom.js';
import { Episodes } from './episodes.js';
import { Live } from './live.js';
import { play, switchSound } from './sound.js';

const MAX_ANSWERS = 4;
const cameras = new Cameras(byId('cameras'));
let state = null;
let isRecording = false;
let verdictShown = '';

const live = new Live(show, showLost);
const episodes = new Episodes(order, confirm);

function show(newest) {
  state = newest;
  const mine = Boolean(newest?.control.mine);
  document.body.classList.toggle('looks-on', Boolean(newest) && !mine);
  showArm(newest?.arm);
  showRecorder(newest?.recorder);
  offer(newest, mine);
  episodes.follow(newest?.recorder, mine);
  byId('stop').disabled = false;
  byId('control').disabled = !newest || mine;
  put('control-text', !newest ? '' : mine ? 'this page controls' : `${newest.control.holder} controls, this page looks on`);
  if (!newest) return;
  cameras.setUp(newest.cameras);
  soundOf(newest.recorder);
}

function soundOf(recorder) {
  if (recorder.lost) return;
  const records = recorder.state === 'RECORDING';
  if (records && !isRecording) play('start');
  isRecording = records;
  const verdict = recorder.verdict?.episode ? `${recorder.verdict.episode} ${recorder.saved}` : verdictShown;
  if (verdict !== verdictShown && verdictShown) play(recorder.verdict.verdict);
  verdictShown = verdict || 'none';
}

function showLost(seconds, reason) {
  const banner = byId('lost');
  banner.hidden = !seconds;
  document.body.classList.toggle('lost', Boolean(seconds));
  put('stop-hint', seconds ? 'NO CONNECTION: use the red button' : 'disables the arm');
  if (!seconds) return;
  banner.textContent =
    reason ||
    `This page has lost the nodes for ${seconds.toFixed(1)} s. Arm and recording go on as they were; this page cannot stop them.`;
}

// Answers stand in the footer, the newest first.
function tell(text, success) {
  const line = document.createElement('p');
  line.dataset.level = success ? 'good' : 'bad';
  line.textContent = `${new Date().toLocaleTimeString()} ${text}`;
  const place = byId('answers');
  place.prepend(line);
  while (place.children.length > MAX_ANSWERS) place.lastChild.remove();
}

async function order(name, values = {}) {
  const answer = await live.send(name, values);
  tell(answer.message, answer.success);
  return answer;
}

// True after Enter or a click, false after Esc.
function confirm(title, text, yes) {
  const dialog = byId('confirm');
  if (dialog.open) return Promise.resolve(false);
  put('confirm-title', title);
  put('confirm-text', text);
  const button = byId('confirm-yes');
  const key = document.createElement('kbd');
  key.textContent = 'Enter';
  button.replaceChildren(`${yes} `, key);
  dialog.returnValue = 'no';
  dialog.showModal();
  button.focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}

function onClick(id, action) {
  byId(id).addEventListener('click', action);
}

onClick('stop', () => {
  play('stop');
  if (byId('confirm').open) byId('confirm').close('no');
  order('stop_arm');
});
onClick('enable', async () => {
  if (await confirm('Enable the arm?', state?.arm.moves ?? '', 'Enable: it will move')) order('enable_arm');
});
onClick('recover', async () => {
  const text = 'The robot releases its stop and its brakes. Look at the arm first: nobody may be near it.';
  if (await confirm('Recover the robot?', text, 'Recover')) order('recover_arm');
});
onClick('control', () => order('take_control'));
onClick('preflight', () => order('preflight'));
onClick('start', () => order('start_episode', { task: byId('task').value }));
onClick('success', () => stopEpisode(true));
onClick('failure', () => stopEpisode(false));
onClick('pause', () => order('pause_episode', { on: state?.recorder.state === 'RECORDING' }));
onClick('redo', () => order('redo_episode'));
onClick('discard', async () => {
  const text = `${state?.recorder.episode} is deleted, with all that it holds.`;
  if (await confirm('Discard the episode?', text, 'Discard')) order('discard_episode');
});
onClick('next-task', () => order('next_task'));
onClick('skip-task', () => order('skip_task'));
onClick('inspect', () => {
  openTab('episodes');
  episodes.choose(state?.recorder.verdict?.episode);
});
onClick('sound', () => {
  const on = byId('sound').getAttribute('aria-pressed') !== 'true';
  byId('sound').setAttribute('aria-pressed', String(on));
  byId('sound').firstChild.textContent = on ? 'Sound on ' : 'Sound off ';
  switchSound(on);
  play('pass');
});

async function stopEpisode(succeeded) {
  const answer = await order('stop_episode', { succeeded, notes: byId('notes').value });
  if (answer.success) byId('notes').value = '';
}

for (const tab of document.querySelectorAll('[data-tab]')) {
  tab.addEventListener('click', () => openTab(tab.dataset.tab));
}

function openTab(name) {
  for (const tab of document.querySelectorAll('[data-tab]')) {
    tab.setAttribute('aria-selected', String(tab.dataset.tab === name));
    byId(tab.dataset.tab).hidden = tab.dataset.tab !== name;
  }
  if (name === 'episodes') episodes.open();
  else episodes.pause();
}

const isText = (element) => element instanceof HTMLInputElement && element.type !== 'checkbox' && element.type !== 'range';

// The space bar stops wherever no text is being written, also while a button has the focus.
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isText(event.target)) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  if (event.key === ' ') {
    event.preventDefault();
    if (!event.repeat) byId('stop').click();
    return;
  }
  if (event.repeat || byId('confirm').open) return;
  if (event.target instanceof HTMLSelectElement) return;
  pressKey(event);
}

function pressKey(event) {
  const key = event.key.toLowerCase();
  const field = [...document.querySelectorAll('[data-focus-key]')].find((e) => e.dataset.focusKey === key && isShown(e));
  if (field) {
    event.preventDefault();
    field.focus();
    return;
  }
  const target = [...document.querySelectorAll('[data-key]')].find((e) => e.dataset.key === key && isShown(e));
  if (target && !target.disabled) {
    event.preventDefault();
    target.click();
  }
}

const isShown = (element) => element.offsetParent !== null;

addEventListener('keydown', onKey, true);
addEventListener('keyup', (event) => {
  if (event.key === ' ' && !isText(event.target)) event.preventDefault();
}, true);
addEventListener('focusin', (event) => put('stop-hint', isText(event.target) ? 'Esc, then space' : 'disables the arm'));
addEventListener('focusout', () => put('stop-hint', 'disables the arm'));
