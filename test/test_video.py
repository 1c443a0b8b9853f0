# SPDX-License-Identifier: Apache-2.0
"""H.264 access units and their copy into MP4."""

import os
from pathlib import Path

import numpy as np
import pytest
import zmq

from groot_ros.errors import GrootRosError
from groot_ros.video.frame import VideoFrame
from groot_ros.video.h264 import H264Decoder, H264Encoder, fastest_codec
from groot_ros.video.mp4 import Mp4Copier, Mp4Encoder, count_frames, read_frames


def rgb(pixels):
    return VideoFrame(0, pixels, 'rgb24')


def copy_to_mp4(access_units, path):
    copier = Mp4Copier(path, 20)
    for access_unit in access_units:
        copier.add(access_unit)
    copier.close()
    return copier.frames


def frames(count):
    ramp = np.linspace(0, 120, 64 * 48 * 3).reshape(48, 64, 3)
    return [(ramp + k).astype(np.uint8) for k in range(count)]


def test_one_access_unit_a_frame_and_copied_frames_show_what_went_in(tmp_path):
    encoder = H264Encoder(64, 48, 20)
    images = frames(33)
    units = [encoder.encode(rgb(image)) for image in images]
    assert copy_to_mp4(units, tmp_path / 'x.mp4') == 33
    assert count_frames(tmp_path / 'x.mp4') == 33
    shown = list(read_frames(tmp_path / 'x.mp4', [0, 16, 32]))
    for image, index in zip(shown, [0, 16, 32], strict=True):
        assert np.abs(image.astype(int) - images[index]).mean() < 4


def test_times_and_keyframes_of_the_copy(tmp_path):
    import av

    encoder = H264Encoder(64, 48, 20)
    copy_to_mp4([encoder.encode(rgb(image)) for image in frames(25)], tmp_path / 'x.mp4')
    with av.open(str(tmp_path / 'x.mp4')) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert [float(packet.pts * packet.time_base) for packet in packets] == pytest.approx(
            [k / 20 for k in range(25)]
        )
        assert [k for k, packet in enumerate(packets) if packet.is_keyframe] == [0, 10, 20]


def test_a_frame_of_another_size_is_refused():
    with pytest.raises(GrootRosError, match='64x24 came where'):
        H264Encoder(64, 48, 20).encode(rgb(np.zeros((24, 64, 3), np.uint8)))


@pytest.mark.parametrize(
    ('layout', 'channels'), [('rgb24', 3), ('bgr24', 3), ('rgba', 4), ('bgra', 4), ('gray', 1)]
)
def test_every_layout_of_pixels_shows_the_same_image(layout, channels):
    image = frames(1)[0]
    pixels = image[:, :, ::-1] if layout.startswith('bgr') else image
    pixels = (
        np.dstack([pixels, np.full((48, 64), 255, np.uint8)]) if channels == 4 else pixels[:, :, :channels]
    )
    unit = H264Encoder(64, 48, 20).encode(VideoFrame(5, np.ascontiguousarray(pixels), layout))
    shown = H264Decoder().decode(5, unit)
    assert shown.stamp_ns == 5
    expected = np.repeat(pixels, 3, axis=2) if layout == 'gray' else image
    assert np.abs(shown.pixels.astype(int) - expected).mean() < 4


def test_a_keyframe_is_made_where_it_is_requested(tmp_path):
    import av

    encoder = H264Encoder(64, 48, 20)
    units = [encoder.encode(rgb(image), keyframe=k == 4) for k, image in enumerate(frames(8))]
    copy_to_mp4(units, tmp_path / 'x.mp4')
    with av.open(str(tmp_path / 'x.mp4')) as container:
        assert [
            k for k, packet in enumerate(p for p in container.demux(video=0) if p.size) if packet.is_keyframe
        ] == [0, 4]


def test_the_codec_that_answers_is_chosen():
    assert fastest_codec() in ('h264_nvenc', 'h264_qsv', 'libx264')


def test_an_encoder_does_not_get_ahead_of_the_servo_loop(tmp_path):
    """SVT-AV1 takes real-time priority 99 for itself and for the thread that opens it."""
    before = (os.sched_getscheduler(0), set(Path('/proc/self/task').iterdir()))
    encoder = Mp4Encoder(tmp_path / 'x.mp4', 64, 64, 30, 'av1')
    try:
        encoder.add(rgb(np.zeros((64, 64, 3), np.uint8)))
        assert os.sched_getscheduler(0) == before[0]
        # ZeroMQ asks the C library for the scheduling of the thread that starts its own.
        context = zmq.Context()
        context.socket(zmq.PAIR).close()
        threads = [int(thread.name) for thread in set(Path('/proc/self/task').iterdir()) - before[1]]
        assert [os.sched_getscheduler(thread) for thread in threads] == [os.SCHED_OTHER] * len(threads)
    finally:
        encoder.close()
        context.term()
