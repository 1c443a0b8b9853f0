# SPDX-License-Identifier: Apache-2.0
"""Images that a LeRobot dataset holds in its parquet files, as PNG or JPEG, instead of videos."""

import io
from collections.abc import Iterator
from typing import Any

import av
import pyarrow as pa

from groot_ros.errors import GrootRosError
from groot_ros.video.frame import VideoFrame

_MAX_PIXELS = 8192 * 8192
# How FFmpeg reads an image, by its first bytes.
_FORMATS = {b'\x89PN': 'png_pipe', b'\xff\xd8\xff': 'jpeg_pipe'}


def decode_images(column: pa.ChunkedArray, rows: slice, where: str) -> Iterator[VideoFrame]:
    """The images of some rows, as RGB; `where` names the column in errors.

    Raises GrootRosError for a value that is no PNG or JPEG, or whose image is larger than any camera's.
    """
    for row in range(rows.start, rows.stop):
        value = column[row].as_py()
        data = value.get('bytes') if isinstance(value, dict) else value
        yield _decode(data, f'{where} row {row}')


def _decode(data: Any, where: str) -> VideoFrame:
    form = _FORMATS.get(data[:3]) if isinstance(data, bytes) else None
    if form is None:
        raise GrootRosError(f'{where} is no PNG or JPEG image: only such images and videos are converted.')
    try:
        with av.open(io.BytesIO(data), format=form, options={'max_pixels': str(_MAX_PIXELS)}) as container:
            context = container.streams.video[0].codec_context
            if context.width * context.height > _MAX_PIXELS:
                size = f'{context.width}x{context.height}'
                raise GrootRosError(f'{where} is an image of {size}, which is larger than any of a camera.')
            frame = next(container.decode(video=0))
            return VideoFrame(0, frame.to_ndarray(format='rgb24'), 'rgb24')
    except (av.FFmpegError, IndexError, StopIteration, ValueError) as error:
        raise GrootRosError(f'{where} is an image that cannot be decoded ({error}).') from error
