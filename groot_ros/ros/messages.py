# SPDX-License-Identifier: Apache-2.0
"""Messages that the policy server publishes."""

import numpy as np

from groot_ros.msg import ActionChunk, PolicyStatus, TcpDelta
from groot_ros.policies.action_decoder import DecodedActions
from groot_ros.policies.chunk_scheduler import ScheduleStats
from groot_ros.policies.inference_worker import InferenceResult
from groot_ros.policies.policy_runner import Command
from groot_ros.ros.time import to_time_msg

_STATE_TEXT = {
    PolicyStatus.IDLE: 'idle',
    PolicyStatus.READY: 'ready',
    PolicyStatus.RUNNING: 'running',
    PolicyStatus.PAUSED: 'paused',
    PolicyStatus.STOPPED: 'stopped',
    PolicyStatus.DONE: 'done',
    PolicyStatus.SHADOW: 'shadow mode',
}


def delta_message(command: Command, period_s: float, frame: str) -> TcpDelta:
    """The message of a command, in the frame of the robot's base; it takes `period_s` from its tick on."""
    message = TcpDelta(source='policy', sequence=command.sequence, duration=period_s, opening=command.opening)
    message.translation = command.delta[:3]
    message.rotation = command.delta[3:]
    message.header.stamp = to_time_msg(command.tick_ns)
    message.header.frame_id = frame
    return message


def chunk_message(
    result: InferenceResult, decoded: DecodedActions, period_s: float, taken: bool, frame: str
) -> ActionChunk:
    """The message of a decoded chunk in `frame`, stamped with the time of its observation."""
    message = ActionChunk(period=period_s, latency=result.replied_s - result.requested_s, taken=taken)
    message.header.stamp = to_time_msg(result.observation.tick_ns)
    message.header.frame_id = frame
    message.poses = decoded.poses.ravel().tolist()
    message.openings = decoded.openings.tolist()
    return message


def stats_message(stats: ScheduleStats) -> PolicyStatus:
    """A status that has the statistics of the chunks; its other fields are empty."""
    status = PolicyStatus(chunks=stats.chunks, late=stats.late, dropped_share=stats.dropped_share)
    status.latency_p50 = stats.latency_s(0.5)
    status.latency_p95 = stats.latency_s(0.95)
    status.chunk_transition_jump_p95 = _p95([transition.jump_m for transition in stats.transitions])
    status.chunk_transition_turn_p95 = _p95([transition.turn_rad for transition in stats.transitions])
    status.action_roughness_p95 = _p95(stats.second_differences_m)
    return status


def format_state(status: PolicyStatus) -> str:
    """The state and its reason as text."""
    text = _STATE_TEXT[status.state]
    return f'{text}: {status.reason}' if status.reason else text


def format_status(status: PolicyStatus) -> dict[str, str]:
    """The values of a status for /diagnostics, as text."""
    return {
        'policy': status.policy,
        'loading': status.loading,
        'chunks': str(status.chunks),
        'without a chunk in time': str(status.late),
        'latency p50 (ms)': f'{status.latency_p50 * 1e3:.1f}',
        'latency p95 (ms)': f'{status.latency_p95 * 1e3:.1f}',
        'steps dropped (share)': f'{status.dropped_share:.3f}',
        'jump at chunk transitions p95 (mm)': f'{status.chunk_transition_jump_p95 * 1e3:.2f}',
        'turn at chunk transitions p95 (rad)': f'{status.chunk_transition_turn_p95:.3f}',
        'action roughness p95 (mm)': f'{status.action_roughness_p95 * 1e3:.3f}',
    }


def _p95(values) -> float:
    return float(np.quantile(list(values), 0.95)) if values else 0.0
