# SPDX-License-Identifier: Apache-2.0
"""What speaks against beginning an episode now. Empty is green."""

from dataclasses import dataclass, field

from groot_ros.bags.topic_types import check_types
from groot_ros.embodiment import Embodiment
from groot_ros.recording.episode_recorder import RecordingSettings
from groot_ros.sampling.stream_monitor import StreamStats

_H264_BYTES_PER_PIXEL, _JPEG_BYTES_PER_PIXEL, _RAW_BYTES_PER_PIXEL = 0.15, 0.4, 4.0
_STATE_BYTES_S = 200e3
_WRITE_RESERVE = 2.0


@dataclass
class RecorderSnapshot:
    """What a recorder sees: type and number of publishers of each topic, how each flows, and the disk, in bytes and bytes/s."""

    types: dict[str, str] = field(default_factory=dict)
    publishers: dict[str, int] = field(default_factory=dict)
    figures: dict[str, StreamStats] = field(default_factory=dict)
    free_bytes: float = float('inf')
    write_speed: float = float('inf')


def preflight(
    embodiment: Embodiment, settings: RecordingSettings, view: RecorderSnapshot, min_free_bytes: float
) -> list[str]:
    """Every reason against beginning an episode, a clause each."""
    needed = embodiment.required_topics
    absent = [topic for topic in needed if topic not in view.types]
    problems = [f'nothing publishes {", ".join(absent)}: start its driver'] if absent else []
    problems += check_types(embodiment, view.types)
    problems += [
        f'{topic} has {count} publishers: stop all but one'
        for topic, count in view.publishers.items()
        if topic in needed and count > 1
    ]
    for topic in needed:
        if topic in view.types and (figures := view.figures.get(topic)) is not None and figures.level > 1:
            problems.append(f'{topic}: {figures.problem}')
    if view.free_bytes < min_free_bytes:
        problems.append(
            f'{view.free_bytes / 1e9:.1f} GB are free on the disk, less than {min_free_bytes / 1e9:g} GB: make room'
        )
    if view.write_speed < (needs := _WRITE_RESERVE * bytes_per_second(embodiment, settings)):
        problems.append(
            f'the disk takes {view.write_speed / 1e6:.0f} MB/s where {needs / 1e6:.0f} MB/s are needed: choose another output_dir, or video h264'
        )
    return problems


def bytes_per_second(embodiment: Embodiment, settings: RecordingSettings) -> float:
    """About what an episode writes, for a picture of much detail."""
    share = {'h264': _H264_BYTES_PER_PIXEL, 'jpeg': _JPEG_BYTES_PER_PIXEL, 'raw': _RAW_BYTES_PER_PIXEL}[
        settings.video
    ]
    pixels = sum(
        camera.width * camera.height * embodiment.expected_hz(camera.topic) for camera in embodiment.cameras
    )
    return share * pixels + _STATE_BYTES_S
