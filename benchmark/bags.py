# SPDX-License-Identifier: Apache-2.0
"""Bags with known signals and two cameras, for benchmarks: messages straight into the recorder's own code."""

import time
from pathlib import Path

from benchmark.record_truth import Messages, Scenario, make_embodiment
from benchmark.signals import STATE_TYPES
from groot_ros.bags.message_types import IMAGE_TYPE
from groot_ros.embodiment import Embodiment
from groot_ros.recording.episode_recorder import EpisodeRecording, RecordingSettings

FPS = 30.0


def recorded(
    path: Path, seconds: float, settings: RecordingSettings | None = None, fps: float = FPS, cameras: int = 2
) -> Embodiment:
    """Records an episode of 640x480 cameras at `path`, and returns its embodiment."""
    scenario = Scenario(fps=fps, camera_hz=(fps,) * cameras, seconds=seconds, size=(640, 480))
    embodiment = make_embodiment(scenario)
    topics = {**STATE_TYPES, **{camera.topic: IMAGE_TYPE for camera in embodiment.cameras}}
    info = {'task': 'compare', 'embodiment': embodiment.text(), 'namespace': '/', 'fps': fps}
    recording = EpisodeRecording(
        path, embodiment, topics, info, **({'settings': settings} if settings else {})
    )
    for topic, arrival_ns, cdr in Messages(scenario):
        while recording.queue_length > 200:
            time.sleep(0.001)
        recording.put(topic, arrival_ns, cdr)
    recording.finish({'outcome': 'success'})
    return embodiment
