# SPDX-License-Identifier: Apache-2.0
"""What the policy server says, as messages."""

import numpy as np

from groot_ros.msg import ActionChunk, PolicyStatus, TcpDelta
from groot_ros.policies.action_decoder import DecodedActions
from groot_ros.policies.chunk_scheduler import ScheduleStats
from groot_ros.policies.inference_worker import InferenceResult
from groot_ros.policies.policy_runner import Command
from groot_ros.ros.time import to_time_msg


def delta_message(command: Command, period_s: float) -> TcpDelta:
    """A command for `period_s` from its tick on."""
    message = TcpDelta(source='policy', sequence=command.sequence, duration=period_s, opening=command.opening)
    message.translation, message.rotation = command.delta[:3], command.delta[3:]
    message.header.stamp, message.header.frame_id = to_time_msg(command.tick_ns), 'base'
    return message


def chunk_message(
    result: InferenceResult, decoded: DecodedActions, period_s: float, taken: bool
) -> ActionChunk:
    """A chunk as it was understood."""
    message = ActionChunk(period=period_s, latency=result.replied_s - result.requested_s, taken=taken)
    message.header.stamp, message.header.frame_id = to_time_msg(result.observation.tick_ns), 'base'
    message.poses, message.openings = decoded.poses.ravel().tolist(), decoded.openings.tolist()
    return message


def stats_message(stats: ScheduleStats) -> PolicyStatus:
    """A status that holds stats only."""
    status = PolicyStatus(chunks=stats.chunks, late=stats.late, dropped_share=stats.dropped_share)
    status.latency_p50, status.latency_p95 = stats.latency_s(0.5), stats.latency_s(0.95)
    status.chunk_transition_jump_p95 = _p95([transition.jump_m for transition in stats.transitions])
    status.chunk_transition_turn_p95 = _p95([transition.turn_rad for transition in stats.transitions])
    status.action_roughness_p95 = _p95(stats.second_differences_m)
    return status


def shown(status: PolicyStatus) -> dict[str, str]:
    """A status for people, for /diagnostics."""
    return {
        'policy': status.policy,
        'loading': status.loading,
        'chunks': str(status.chunks),
        'without a chunk in time': str(status.late),
        'latency p50 (ms)': f'{status.latency_p50 * 1e3:.1f}',
        'latency p95 (ms)': f'{status.latency_p95 * 1e3:.1f}',
        'steps dropped (share)': f'{status.dropped_share:.3f}',
        'jump at transitions p95 (mm)': f'{status.chunk_transition_jump_p95 * 1e3:.2f}',
        'turn at transitions p95 (rad)': f'{status.chunk_transition_turn_p95:.3f}',
        'second difference p95 (mm)': f'{status.action_roughness_p95 * 1e3:.3f}',
    }


def _p95(values) -> float:
    return float(np.quantile(list(values), 0.95)) if values else 0.0
