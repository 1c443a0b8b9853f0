# SPDX-License-Identifier: Apache-2.0
"""What the page shows of the nodes' messages: words, levels and what to do, never a value that is too old."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from groot_ros.message_fields import header_stamp_ns

# A node that is silent for longer is lost: the page says so within a second of its last message.
LOST_S = 0.8
_ARM_STATES = ('DISABLED', 'ENABLED', 'STOPPED', 'FREEDRIVE')
_EPISODE_STATES = ('IDLE', 'RECORDING', 'PAUSED')
_POLICY_STATES = ('IDLE', 'READY', 'RUNNING', 'PAUSED', 'STOPPED', 'DONE', 'SHADOW')
_SLOW_SLIDER = 0.05
_FEW_MINUTES = 10.0
_MAX_TEXT = 4000


@dataclass
class Newest:
    """The newest message of a node, and when it or another sign of life arrived, in s of one clock."""

    message: Any = None
    heard_s: float = -math.inf

    def take(self, message: Any, now_s: float) -> None:
        """Keeps a message that arrived now."""
        self.message = message
        self.heard_s = now_s

    def view(self, make: Callable[[Any], dict[str, Any]], node: str, now_s: float) -> dict[str, Any]:
        """What `make` gives of the message, or only that the node is lost: no old value leaves here."""
        silent_s = now_s - self.heard_s
        if self.message is None:
            return {'lost': True, 'sentence': f'{node} does not run, or has not reported yet.'}
        if silent_s > LOST_S:
            return {'lost': True, 'sentence': f'{node} has been silent for {silent_s:.1f} s.'}
        return {'lost': False, **make(self.message)}


def arm_view(status: Any, commanders: dict[str, list[str]]) -> dict[str, Any]:
    """Who owns the arm, why it stopped and what to do. `commanders` are nodes that may command, by source."""
    state = _name(_ARM_STATES, status.state)
    return {
        'state': state,
        'source': status.source,
        'reason': _clip(status.reason),
        'advice': _arm_advice(status, state),
        'robot_mode': status.robot_mode_text,
        'safety_mode': status.safety_mode_text,
        'speed_percent': round(100 * status.speed_scaling),
        'connected': status.connected,
        'may_recover': status.protective_stopped or status.emergency_stopped,
        'moves': _what_moves(status, commanders),
    }


def _arm_advice(status: Any, state: str) -> str:
    if not status.connected:
        return 'No data come from the robot: check that it is on, its cable and robot_ip.'
    if status.emergency_stopped:
        return 'Release the emergency stop, then recover (V).'
    if status.protective_stopped:
        return 'Look at the arm, remove the cause, then recover (V).'
    if state == 'STOPPED':
        return 'Remove the cause, then enable (E).'
    if state == 'DISABLED':
        return 'Nothing moves. Enable (E) when nobody is near the arm.'
    if state == 'FREEDRIVE':
        return 'A hand may guide the arm. Stop (space) ends it.'
    if status.speed_scaling < _SLOW_SLIDER:
        return 'The speed slider on the pendant holds the arm: raise it.'
    return 'Commands move the arm. Stop: space.'


def _what_moves(status: Any, commanders: dict[str, list[str]]) -> str:
    """The sentence that a person confirms before the arm is enabled."""
    speed = f'{100 * status.speed_scaling:.0f} %'
    begin = f'The UR5e arm and its gripper will move, with the speed slider at {speed}'
    named = [f'{source} ({", ".join(nodes)})' for source, nodes in commanders.items() if nodes]
    if not named:
        return f'{begin}. Nobody commands now: the arm holds until teleop or a policy starts.'
    return f'{begin}, as commanded by {" or ".join(named)}.'


def episode_view(status: Any) -> dict[str, Any]:
    """The recorder: its episode, problems, task list and disk."""
    state = _name(_EPISODE_STATES, status.state)
    minutes = status.disk_minutes
    return {
        'state': state,
        'episode': status.episode,
        'task': _clip(status.task),
        'rows': status.rows,
        'filled': status.filled,
        'saved': status.saved,
        'lost_messages': status.lost,
        'queue': status.queue,
        'encoder_lag_ms': round(1e3 * status.encoder_lag),
        'problems': [_clip(problem) for problem in status.problems],
        'next_task': _clip(status.next_task),
        'next_done': status.next_task_done,
        'next_wanted': status.next_task_wanted,
        'tasks': [
            {'text': _clip(task.text), 'done': task.done, 'wanted': task.wanted} for task in status.tasks
        ],
        'disk': disk_view(status.disk_free, minutes),
        'streams': [stream_view(stream) for stream in status.streams],
    }


def disk_view(free_bytes: float, minutes: float) -> dict[str, Any]:
    """How long the disk lasts."""
    level = 'good'
    if minutes < _FEW_MINUTES:
        level = 'bad' if minutes < 1 else 'warn'
    hours = minutes / 60
    text = f'{minutes:.0f} min' if minutes < 600 else f'{hours:.0f} h'
    return {'text': f'{text} left ({free_bytes / 1e9:.0f} GB)', 'level': level}


def stream_view(stream: Any) -> dict[str, Any]:
    """One stream with its level and its sentence."""
    level, sentence = _judge_stream(stream)
    return {
        'topic': stream.topic,
        'rate_hz': _one_digit(stream.rate),
        'expected_hz': _one_digit(stream.expected_rate),
        'age_ms': round(1e3 * stream.age) if stream.age >= 0 else None,
        'jitter_ms': _one_digit(1e3 * stream.jitter),
        'lost': stream.lost,
        'level': level,
        'sentence': sentence,
    }


def _judge_stream(stream: Any) -> tuple[str, str]:
    """Level and sentence, after the recorder's own problem with the stream."""
    if stream.problem:
        mild = stream.problem.startswith(('had a gap', 'stamps went back'))
        return ('warn' if mild else 'bad'), _clip(stream.problem)
    if stream.lost:
        return 'bad', f'{stream.lost} messages were lost in this episode'
    if stream.age < 0:
        return 'idle', 'no message yet'
    return 'good', 'flows'


def policy_view(status: Any) -> dict[str, Any]:
    """The policy server: state, latency and dropped steps."""
    return {
        'state': _name(_POLICY_STATES, status.state),
        'reason': _clip(status.reason),
        'policy': _clip(status.policy),
        'task': _clip(status.task),
        'loading': _clip(status.loading),
        'chunks': status.chunks,
        'late': status.late,
        'latency_p50_ms': _milliseconds(status.latency_p50),
        'latency_p95_ms': _milliseconds(status.latency_p95),
        'dropped_percent': _one_digit(100 * status.dropped_share),
    }


def image_age_s(message: Any, now_ns: int) -> float:
    """The age of an image since its exposure, in s."""
    return (now_ns - header_stamp_ns(message)) / 1e9


def _milliseconds(seconds: float) -> float | None:
    return round(1e3 * seconds) if math.isfinite(seconds) else None


def _one_digit(value: float) -> float | None:
    """Rounded for the page; None where there is no number, since JSON has no NaN."""
    return round(float(value), 1) if math.isfinite(value) else None


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else f'UNKNOWN {number}'


def _clip(text: str) -> str:
    """A text of a message; a node may send any length."""
    return text if len(text) <= _MAX_TEXT else f'{text[:_MAX_TEXT]}…'
