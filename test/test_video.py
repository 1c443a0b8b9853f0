"""H.264 access units and their copy into MP4."""

import numpy as np
import pytest

from groot_ros.bags.video import H264Encoder, count_frames, read_frames, write_mp4
from groot_ros.errors import GrootRosError


def frames(count):
    ramp = np.linspace(0, 120, 64 * 48 * 3).reshape(48, 64, 3)
    return [(ramp + k).astype(np.uint8) for k in range(count)]


def test_one_access_unit_a_frame_and_copied_frames_show_what_went_in(tmp_path):
    encoder = H264Encoder(64, 48, 20)
    images = frames(33)
    units = [encoder.encode(image) for image in images]
    assert write_mp4(iter(units), tmp_path / 'x.mp4', 20) == 33
    assert count_frames(tmp_path / 'x.mp4') == 33
    shown = list(read_frames(tmp_path / 'x.mp4', [0, 16, 32]))
    for image, index in zip(shown, [0, 16, 32], strict=True):
        assert np.abs(image.astype(int) - images[index]).mean() < 4


def test_times_and_keyframes_of_the_copy(tmp_path):
    import av

    encoder = H264Encoder(64, 48, 20)
    write_mp4([encoder.encode(image) for image in frames(25)], tmp_path / 'x.mp4', 20)
    with av.open(str(tmp_path / 'x.mp4')) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert [float(packet.pts * packet.time_base) for packet in packets] == pytest.approx([k / 20 for k in range(25)])
        assert [k for k, packet in enumerate(packets) if packet.is_keyframe] == [0, 10, 20]


def test_a_frame_of_another_size_is_refused():
    with pytest.raises(GrootRosError, match='64x24 came where'):
        H264Encoder(64, 48, 20).encode(np.zeros((24, 64, 3), np.uint8))
