# SPDX-License-Identifier: Apache-2.0
"""Opens videos of others: one that declares an absurd size takes no memory.

A stream of H.264 or HEVC declares its size in a few bytes, and a decoder keeps up to 17 images of that size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import av

from groot_ros.errors import GrootRosError

# 4096 x 4096: 17 images of it have 430 MB. The two images of a ZED in HD2K side by side have 5.5 million.
MAX_VIDEO_PIXELS = 1 << 24


@contextmanager
def open_video(source: Path | BinaryIO, form: str | None = None, **decoding: str) -> Iterator[Any]:
    """The container of a video that is read; `decoding` are options of FFmpeg's decoders.

    Raises av.FFmpegError or OSError for what is no video, and GrootRosError for an unknown codec or more
    pixels than MAX_VIDEO_PIXELS. Decoders refuse an image that is larger than the container says.
    """
    options = limited(**decoding)
    file = str(source) if isinstance(source, Path) else source
    # Titles in a damaged file may be no text.
    with av.open(file, format=form, options=options, metadata_errors='replace') as opened:
        name = f'The video {source}' if isinstance(source, Path) else 'A video'
        for stream in opened.streams.video:
            context = stream.codec_context
            if context is None:
                raise GrootRosError(f'{name} has a codec that FFmpeg does not know: it is damaged.')
            if context.width * context.height > MAX_VIDEO_PIXELS:
                raise GrootRosError(
                    f'{name} says that it has {context.width}x{context.height} pixels, and '
                    f'{MAX_VIDEO_PIXELS} can be decoded: it is damaged, or of no camera.'
                )
            context.options = options
        yield opened


def limited(**decoding: str) -> dict[str, str]:
    """Options of a decoder that refuses images of more than MAX_VIDEO_PIXELS."""
    return {'max_pixels': str(MAX_VIDEO_PIXELS), **decoding}
