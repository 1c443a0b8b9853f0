# SPDX-License-Identifier: Apache-2.0
"""Checks of one video: every frame is decoded, since training meets a damaged one only after hours."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from groot_ros.dataset.meta import path_inside
from groot_ros.dataset.validation.finding import ERROR, WARNING, EpisodeColumns, ValidationFinding
from groot_ros.errors import GrootRosError
from groot_ros.video.open import open_video

_KEYFRAME_FRAMES = 300  # x264's own default is 250
_THUMBNAIL_STEP = 16
_DARK = 20.0  # black has the brightness 16
_SAME = 0.5


@dataclass
class _Video:
    codec: str
    pixel_format: str
    size: tuple[int, int]
    rate: float
    frames: int
    keyframe_gap: int
    changes: bool
    brightness: float


def check_video(
    root: Path, file: str, key: str, feature: dict, episode: EpisodeColumns, fps: float
) -> Iterator[ValidationFinding]:
    """Gives the findings of one camera of an episode, and notes the size of its images in `episode`."""
    try:
        video = _decoded(path_inside(root, file))
    except (GrootRosError, OSError, av.FFmpegError, IndexError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield ValidationFinding(ERROR, file, f'cannot be decoded ({reason})', 'convert again')
        return
    episode.video_shapes[key] = (video.size[1], video.size[0])
    if video.frames != episode.rows:
        yield ValidationFinding(
            ERROR,
            file,
            f'has {video.frames} frames for {episode.rows} rows, so frame and row do not belong together',
            'convert again',
        )
    yield from _check_form(file, video, feature, fps)
    if video.keyframe_gap > _KEYFRAME_FRAMES:
        yield ValidationFinding(
            WARNING,
            file,
            f'has no keyframe for {video.keyframe_gap} frames, which makes random access slow',
            'encode it again',
        )
    if not video.changes and video.frames > 1:
        yield ValidationFinding(
            WARNING,
            file,
            'shows the same image from beginning to end',
            'check whether the camera was frozen, and leave the episode out',
        )
    if video.brightness < _DARK:
        yield ValidationFinding(
            WARNING, file, 'is black', 'check whether the lens was covered, and leave the episode out'
        )


def _check_form(file: str, video: _Video, feature: dict, fps: float) -> Iterator[ValidationFinding]:
    width, height = video.size
    if [height, width] != list(feature['shape'][:2]):
        yield ValidationFinding(
            ERROR,
            file,
            f'is {width}x{height}, info.json says {feature["shape"][1]}x{feature["shape"][0]}',
            'correct info.json',
        )
    if fps and abs(video.rate / fps - 1) > 0.01:
        yield ValidationFinding(
            ERROR,
            file,
            f'runs at {video.rate:.2f} frames/s, info.json says {fps:g}',
            'set fps to the rate that was recorded',
        )
    described = feature.get('info') or feature.get('video_info') or {}
    said = described.get('video.codec', video.codec)
    if said != video.codec:
        yield ValidationFinding(ERROR, file, f'is {video.codec}, info.json says {said}', 'correct info.json')
    if video.codec != 'h264':
        yield ValidationFinding(
            WARNING,
            file,
            f'is {video.codec}, which not every installation of GR00T decodes',
            'convert with --codec h264',
        )
    if video.pixel_format not in ('yuv420p', 'yuvj420p'):
        yield ValidationFinding(
            WARNING,
            file,
            f'has pixels of {video.pixel_format}, which not every decoder takes',
            'convert it to yuv420p',
        )


def _decoded(path: Path) -> _Video:
    """Raises av.FFmpegError or ValueError for a video that is damaged."""
    frames = 0
    gap = 0
    last_keyframe = 0
    changes = False
    brightness = []
    first: np.ndarray | None = None
    with open_video(path, err_detect='explode') as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            if frame.key_frame:
                last_keyframe = frames
            elif frames == 0:
                raise ValueError('it does not begin with a keyframe')
            gap = max(gap, frames - last_keyframe)
            thumbnail = _thumbnail(frame)
            first = thumbnail if first is None else first
            changes = changes or bool(np.abs(thumbnail - first).max() > _SAME)
            brightness.append(thumbnail.mean())
            frames += 1
        if not frames:
            raise ValueError('it holds no frame')
        context = stream.codec_context
        return _Video(
            codec=context.codec.canonical_name,
            pixel_format=str(context.pix_fmt),
            size=(context.width, context.height),
            rate=float(stream.average_rate or 0),
            frames=frames,
            keyframe_gap=gap,
            changes=changes,
            brightness=float(np.mean(brightness)),
        )


def _thumbnail(frame: av.VideoFrame) -> np.ndarray:
    """The brightness of some pixels of a frame."""
    plane = frame.planes[0]
    pixels = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
    return pixels[::_THUMBNAIL_STEP, ::_THUMBNAIL_STEP].astype(float)
