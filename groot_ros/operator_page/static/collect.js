// SPDX-License-Identifier: Apache-2.0
// Shows the arm and the recorder. Without a state, or with a node that is lost, no old value stays.

import { byId, LEVEL_OF_VERDICT, number, put, putList, putRows, setLevel, SIGNS, WORDS } from './dom.js';

const ARM_LEVELS = { ENABLED: 'warn', FREEDRIVE: 'warn', STOPPED: 'bad', DISABLED: 'good' };
const ARM_SOURCES = {
  DISABLED: 'nothing moves',
  STOPPED: 'stopped by itself',
  FREEDRIVE: 'a hand guides the arm',
  ENABLED: 'nobody commands',
};

export function showArm(arm) {
  if (!arm || arm.lost) {
    put('arm-state', 'LOST');
    put('arm-source', 'the arm does not report');
    put('arm-reason', arm ? arm.sentence : '');
    put('arm-advice', 'What the arm does is not known: the emergency stop works.');
    put('arm-facts', '');
    setLevel('owner', 'bad');
    return;
  }
  put('arm-state', arm.state);
  put('arm-source', arm.source ? `${arm.source} commands` : ARM_SOURCES[arm.state] ?? '');
  put('arm-reason', arm.reason);
  put('arm-advice', arm.advice);
  put('arm-facts', `robot ${arm.robot_mode || '–'}, safety ${arm.safety_mode || '–'}, speed ${arm.speed_percent} %`);
  setLevel('owner', arm.connected ? ARM_LEVELS[arm.state] ?? 'bad' : 'bad');
}

export function showRecorder(recorder) {
  if (!recorder || recorder.lost) {
    showRecorderLost(recorder);
    return;
  }
  const isIdle = recorder.state === 'IDLE';
  put('episode-state', isIdle ? (recorder.problems.length ? 'NOT READY' : 'READY') : recorder.state);
  put('episode-name', isIdle ? '' : recorder.episode);
  showTask(recorder, isIdle);
  put('episode-facts', isIdle ? `${recorder.saved} saved since the recorder started` : describe(recorder));
  showProblems(recorder, isIdle);
  showVerdict(isIdle ? recorder.verdict : null, isIdle);
  showTasks(recorder);
  putRows('streams', recorder.streams.map(streamRow));
  put('disk', `${SIGNS[recorder.disk.level]} ${recorder.disk.text}`);
  setLevel('disk', recorder.disk.level);
  put('recorder-sentence', '');
}

function showRecorderLost(recorder) {
  put('episode-state', 'LOST');
  put('episode-name', '');
  put('episode-task', recorder ? recorder.sentence : '');
  put('episode-facts', '');
  setLevel('episode', 'bad');
  putList('problems', [], 'bad');
  putRows('streams', []);
  putRows('tasks', []);
  put('disk', '–');
  setLevel('disk', 'idle');
  put('recorder-sentence', recorder ? recorder.sentence : 'Nothing is known of the streams.');
  showVerdict(null, true);
}

function describe(recorder) {
  return (
    `${recorder.rows} rows, ${recorder.filled} filled, ${recorder.lost_messages} lost, ` +
    `${recorder.queue} wait for the writer, encoder ${recorder.encoder_lag_ms} ms`
  );
}

function showTask(recorder, isIdle) {
  if (!isIdle) {
    put('episode-task', recorder.task);
    return;
  }
  const count = recorder.next_wanted ? ` (${recorder.next_done} of ${recorder.next_wanted} done)` : '';
  put('episode-task', recorder.next_task ? `next: ${recorder.next_task}${count}` : 'no next task: write one below');
}

function showProblems(recorder, isIdle) {
  const level = recorder.problems.length ? 'bad' : 'good';
  put('problems-title', isIdle ? 'Preflight' : 'While recording');
  const calm = isIdle ? 'green: an episode can start' : 'nothing is wrong';
  putList('problems', recorder.problems.length ? recorder.problems : [calm], level);
  setLevel('episode', isIdle ? level : recorder.state === 'PAUSED' ? 'warn' : 'recording');
}

function showVerdict(verdict, isIdle) {
  if (!verdict || !verdict.verdict) {
    put('verdict-level', '–');
    put('verdict-episode', isIdle ? 'no episode yet' : 'an episode is being recorded');
    putList('verdict-reasons', [], 'idle');
    setLevel('verdict', 'idle');
    return;
  }
  const level = LEVEL_OF_VERDICT[verdict.verdict] ?? 'idle';
  put('verdict-level', `${SIGNS[level]} ${verdict.verdict.toUpperCase()}`);
  put('verdict-episode', verdict.episode);
  putList('verdict-reasons', verdict.reasons.length ? verdict.reasons : ['all checks passed'], level);
  setLevel('verdict', level);
}

function showTasks(recorder) {
  const rows = recorder.tasks.map((task) => [
    { text: task.text, level: task.text === recorder.next_task ? 'next' : '' },
    number(task.done),
    number(task.wanted),
  ]);
  putRows('tasks', rows.length ? rows : [['no task list', number('–'), number('–')]]);
}

function streamRow(stream) {
  const rate = stream.expected_hz ? `${stream.rate_hz} of ${stream.expected_hz}` : stream.rate_hz;
  return [
    { text: `${SIGNS[stream.level]} ${WORDS[stream.level]}`, level: stream.level },
    stream.topic,
    number(rate),
    number(stream.age_ms),
    number(stream.jitter_ms),
    number(stream.lost),
    { text: stream.sentence, level: stream.level },
  ];
}

// Which buttons may be pressed now. `mine` says whether this page controls.
export function offer(state, mine) {
  const arm = state?.arm;
  const recorder = state?.recorder;
  const armKnown = mine && arm && !arm.lost;
  const known = mine && recorder && !recorder.lost;
  const isIdle = known && recorder.state === 'IDLE';
  const isOpen = known && !isIdle;
  byId('enable').disabled = !(armKnown && arm.connected && ['DISABLED', 'STOPPED'].includes(arm.state));
  byId('recover').disabled = !(armKnown && arm.may_recover);
  byId('preflight').disabled = !known;
  byId('start').disabled = !isIdle;
  for (const id of ['success', 'failure', 'pause', 'redo', 'discard']) byId(id).disabled = !isOpen;
  const hasTasks = isIdle && recorder.tasks.length > 0;
  byId('next-task').disabled = byId('skip-task').disabled = !hasTasks;
  byId('inspect').disabled = !(recorder && !recorder.lost && recorder.state === 'IDLE' && recorder.verdict?.episode);
  byId('pause').firstChild.textContent = recorder?.state === 'PAUSED' ? 'Go on ' : 'Pause ';
}
