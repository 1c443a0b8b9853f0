# SPDX-License-Identifier: Apache-2.0
"""Why an episode should not start now (preflight), and what is wrong while it is recorded."""

from dataclasses import dataclass, field

from rosbags.interfaces import Qos

from groot_ros.bags.topic_types import check_types
from groot_ros.embodiment import Embodiment
from groot_ros.recording.episode_recorder import EpisodeRecording, RecordingSettings
from groot_ros.sampling.stream_monitor import StreamStats

_BYTES_PER_PIXEL = {'h264': 0.15, 'jpeg': 0.4, 'raw': 4.0}  # of an image with much detail
_STATE_BYTES_S = 200e3
_WRITE_RESERVE = 2.0
_FIRST_ROW_S = 2.0
_MAX_WRITER_LAG_S = 0.5
_LOST_S = 2.0


@dataclass
class RecorderSnapshot:
    """What a recorder sees now.

    `types` are those of the topics that can be recorded, `unknown` those of topics whose message type is not
    installed, `changed` those of topics that had another type before. `offered` is the quality of service of
    the publishers of each topic. Then the number of publishers of each topic, statistics of each stream,
    free space of the disk in bytes, and its write speed in bytes/s.
    """

    types: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)
    offered: dict[str, list[Qos]] = field(default_factory=dict)
    publishers: dict[str, int] = field(default_factory=dict)
    stats: dict[str, StreamStats] = field(default_factory=dict)
    free_bytes: float = float('inf')
    write_speed: float = float('inf')

    @property
    def published(self) -> dict[str, str]:
        """The types of all topics, whether they can be recorded or not."""
        return self.types | self.unknown


def preflight(
    embodiment: Embodiment, settings: RecordingSettings, snapshot: RecorderSnapshot, min_free_bytes: float
) -> list[str]:
    """Every reason why an episode should not start, a clause each; empty if it can."""
    return [
        *_topic_problems(embodiment, snapshot),
        *check_types(embodiment, snapshot.published),
        *_stream_problems(embodiment, snapshot),
        *_disk_problems(embodiment, settings, snapshot, min_free_bytes),
        *_changed_types(snapshot),
    ]


def recording_problems(recording: EpisodeRecording, elapsed_s: float) -> list[str]:
    """What is wrong with an episode after `elapsed_s` of recording, a clause each; empty if nothing is."""
    problems = []
    lag_s = recording.writer_lag_s
    if lag_s > _MAX_WRITER_LAG_S:
        problems.append(f'writing is {lag_s:.1f} s late: use fewer cameras or smaller images')
    if recording.trace.overflows:
        problems.append(f'writing is too slow: {recording.trace.overflows} messages were lost')
    if elapsed_s > _FIRST_ROW_S and not recording.trace.rows and not recording.paused:
        missing = ', '.join(recording.missing_topics()) or 'the first camera'
        problems.append(f'there is no row yet, because nothing arrived from {missing}')
    return problems


def lost_streams(embodiment: Embodiment, snapshot: RecorderSnapshot, elapsed_s: float) -> list[str]:
    """The streams that rows need, and that fell silent for 2 s after an episode began `elapsed_s` ago."""
    found = []
    for topic in embodiment.required_topics:
        stats = snapshot.stats.get(topic)
        if stats is not None and embodiment.expected_hz(topic) and _LOST_S < stats.silent_s < elapsed_s:
            found.append(topic)
    return found


def bytes_per_second(embodiment: Embodiment, settings: RecordingSettings) -> float:
    """Estimate of what an episode writes in bytes/s, for images with much detail."""
    pixels_s = sum(
        camera.width * camera.height * embodiment.expected_hz(camera.topic) for camera in embodiment.cameras
    )
    return _BYTES_PER_PIXEL[settings.video] * pixels_s + _STATE_BYTES_S


def _topic_problems(embodiment: Embodiment, snapshot: RecorderSnapshot) -> list[str]:
    absent = [topic for topic in embodiment.required_topics if topic not in snapshot.published]
    if not absent:
        return []
    return [f'nothing publishes {", ".join(absent)}: start its driver']


def _stream_problems(embodiment: Embodiment, snapshot: RecorderSnapshot) -> list[str]:
    problems = []
    needed = embodiment.required_topics
    for topic, count in snapshot.publishers.items():
        if topic in needed and count > 1:
            problems.append(f'{topic} has {count} publishers: stop all but one')
    for topic in needed:
        stats = snapshot.stats.get(topic)
        if topic in snapshot.published and stats is not None and stats.level > 1:
            problems.append(f'{topic}: {stats.problem}')
    return problems


def _disk_problems(
    embodiment: Embodiment, settings: RecordingSettings, snapshot: RecorderSnapshot, min_free_bytes: float
) -> list[str]:
    problems = []
    if snapshot.free_bytes < min_free_bytes:
        free_gb = snapshot.free_bytes / 1e9
        wanted_gb = min_free_bytes / 1e9
        problems.append(f'{free_gb:.1f} GB are free on the disk, less than {wanted_gb:g} GB: make room')
    needed_speed = _WRITE_RESERVE * bytes_per_second(embodiment, settings)
    if snapshot.write_speed < needed_speed:
        speed_mb = snapshot.write_speed / 1e6
        needed_mb = needed_speed / 1e6
        problems.append(
            f'the disk writes {speed_mb:.0f} MB/s, but {needed_mb:.0f} MB/s are needed: '
            'choose another output_dir, or video:=h264'
        )
    return problems


def _changed_types(snapshot: RecorderSnapshot) -> list[str]:
    return [
        f'{topic} came as {snapshot.types[topic]} and now as {msgtype}: start the recorder again'
        for topic, msgtype in snapshot.changed.items()
    ]
