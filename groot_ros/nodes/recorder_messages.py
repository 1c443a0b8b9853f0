# SPDX-License-Identifier: Apache-2.0
"""What the recorder reports: its episode, its task list, and each stream."""

from builtin_interfaces.msg import Time

from groot_ros.embodiment import Embodiment
from groot_ros.msg import EpisodeStatus, StreamHealth, TaskCount
from groot_ros.recording.episode_recorder import EpisodeRecording
from groot_ros.recording.episode_session import EpisodeSession
from groot_ros.sampling.stream_monitor import StreamStats


def episode_status(
    stamp: Time, session: EpisodeSession, problems: list[str], streams: list[StreamHealth]
) -> EpisodeStatus:
    """The state of a session, with its problems and streams."""
    status = EpisodeStatus(
        task=session.task,
        episode=session.episode,
        saved=session.saved,
        verdict=session.last_verdict,
        disk_free=float(session.folder.free_bytes()),
        disk_minutes=session.disk_minutes(),
        problems=problems,
        streams=streams,
    )
    status.header.stamp = stamp
    status.tasks = [
        TaskCount(text=entry.task.text, done=entry.done, wanted=entry.task.count) for entry in session.tasks()
    ]
    _fill_next_task(status, session)
    if session.recording is not None:
        _fill_recording(status, session.recording)
    return status


def stream_health(
    stats: dict[str, StreamStats], embodiment: Embodiment, recording: EpisodeRecording | None
) -> list[StreamHealth]:
    """How each stream arrives now, and what the episode has of it."""
    recorded = recording.trace.streams if recording is not None else {}
    found = []
    for topic, measured in stats.items():
        health = StreamHealth(
            topic=topic,
            rate=measured.rate_hz,
            expected_rate=embodiment.expected_hz(topic),
            age=measured.age_s,
            jitter=measured.jitter_s,
            max_gap=measured.max_gap_s,
            problem=measured.problem,
        )
        if topic in recorded:
            health.received = len(recorded[topic].stamps_ns)
            health.lost = recorded[topic].lost
        found.append(health)
    return found


def _fill_next_task(status: EpisodeStatus, session: EpisodeSession) -> None:
    """Adds the task of an episode that is started without one."""
    progress = session.next_task()
    status.next_task = session.chosen_task or (progress.task.text if progress else '')
    for entry in status.tasks:
        if entry.text == status.next_task:
            status.next_task_done = entry.done
            status.next_task_wanted = entry.wanted


def _fill_recording(status: EpisodeStatus, recording: EpisodeRecording) -> None:
    """Adds the fields of an episode that is being recorded."""
    status.state = EpisodeStatus.PAUSED if recording.paused else EpisodeStatus.RECORDING
    status.rows = recording.trace.rows
    status.filled = recording.trace.filled
    status.encoder_lag = recording.max_encoder_lag_s
    status.queue = recording.queue_length
    status.lost = recording.trace.lost
