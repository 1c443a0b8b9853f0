# SPDX-License-Identifier: Apache-2.0
"""The video of an episode of LeRobot v2, which is a file of its own: frame k belongs to row k."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import av

from groot_ros.errors import GrootRosError
from groot_ros.video.frame import VideoFrame
from groot_ros.video.mp4 import cut_mp4, encode_mp4, find_keyframes
from groot_ros.video.open import open_video


def write_rows_of_video(
    video: Path, path: Path, rows: slice, total: int, size: tuple[int, int], fps: float, codec: str
) -> int:
    """Copies the frames of some of an episode's `total` rows if possible, and else encodes them again.

    They are copied if they have the size (width, height), rate and codec, and begin with a keyframe. Returns
    their number. Raises GrootRosError for a video that cannot be decoded.
    """
    try:
        if _has_form(video, size, fps, codec) and _copy(video, path, rows, total, fps):
            return rows.stop - rows.start
        return encode_mp4(_frames(video, rows), path, size, fps, codec)
    except (OSError, av.FFmpegError, IndexError) as error:
        raise GrootRosError(f'The video {video} cannot be decoded ({str(error).splitlines()[0]}).') from error


def _copy(video: Path, path: Path, rows: slice, total: int, fps: float) -> bool:
    """Copies the frames without decoding, if that is possible."""
    keyframes, in_order = find_keyframes(video)
    count = rows.stop - rows.start
    if count == total:
        shutil.copyfile(video, path)
        return True
    if in_order and rows.start in keyframes:
        return cut_mp4(video, path, rows.start, count, fps) == count
    return False


def _has_form(video: Path, size: tuple[int, int], fps: float, codec: str) -> bool:
    with open_video(video) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0)
        has_codec = stream.codec_context.codec.canonical_name == codec
        has_size = (stream.width, stream.height) == size
    return has_codec and has_size and abs(rate / fps - 1) < 1e-3


def _frames(video: Path, rows: slice) -> Iterator[VideoFrame]:
    with open_video(video) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index >= rows.stop:
                return
            if index >= rows.start:
                yield VideoFrame(0, frame.to_ndarray(format='rgb24'), 'rgb24')
