# SPDX-License-Identifier: Apache-2.0
"""A stretch: what becomes one episode of a dataset. Its rows, where it comes from, and how its videos are written."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groot_ros.embodiment import CameraField
from groot_ros.sampling.rows import RowTable
from groot_ros.video.frame import VideoFrame
from groot_ros.video.mp4 import encode_mp4


@dataclass
class EpisodeMetadata:
    """What a source says of an episode; the task is empty where it says none."""

    task: str = ''
    outcome: str = 'success'
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Segment:
    """RowTable without a pause between them."""

    rows: RowTable
    facts: EpisodeMetadata

    def start_by(self, row: int) -> int:
        """The last row, up to this one, at which the videos can begin without encoding them anew."""
        return row

    def write_video(self, camera: CameraField, path: Path, first: int, count: int) -> int:
        """Writes a camera's frames of some rows, and returns how many there were."""
        raise NotImplementedError


def encoded(frames: Iterable[VideoFrame], camera: CameraField, path: Path, fps: float, codec: str) -> int:
    """Encodes frames in the size of the camera."""
    return encode_mp4(frames, path, (camera.width, camera.height), fps, codec)
