# SPDX-License-Identifier: Apache-2.0
"""Cameras: the SDK's calls on a stand-in, V4L2 and files through PyAV, rectification with a known truth."""

import importlib
import multiprocessing
import socket
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras import CAMERA_SOURCES, open_camera, uvc
from groot_ros.hardware.cameras.base import CameraSettings, FrozenImageMonitor, check_mode
from groot_ros.hardware.cameras.uvc import UvcCamera
from groot_ros.hardware.cameras.zed_rectification import StereoRectifier
from groot_ros.sim.camera import run_camera
from groot_ros.sim.camera_client import SimCamera
from groot_ros.sim.physics import Physics
from groot_ros.sim.ports import FRAME_HEADER, FRAME_MAGIC

CONF = """
[LEFT_CAM_VGA]
fx=350.5
fy=350.0
cx=333.0
cy=190.0
k1=-0.17
k2=0.025
p1=0.0004
p2=-0.0003
k3=0.001
[RIGHT_CAM_VGA]
fx=350.1
fy=349.8
cx=338.0
cy=186.0
k1=-0.168
k2=0.024
p1=0.0001
p2=0.0002
k3=0.0012
[STEREO]
Baseline=119.9
TY_VGA=0.1
TZ_VGA=-0.2
CV_VGA=0.004
RX_VGA=-0.002
RZ_VGA=0.001
"""


@pytest.fixture
def conf(tmp_path):
    (tmp_path / 'SN1.conf').write_text(CONF)
    return str(tmp_path / 'SN1.conf')


@pytest.fixture
def video(tmp_path):
    """Both eyes side by side: the left eye is red and brightens, the right eye is blue."""
    path = tmp_path / 'side_by_side.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=30)
        stream.width = 1344
        stream.height = 376
        stream.pix_fmt = 'yuv444p'
        for k in range(6):
            image = np.zeros((376, 1344, 3), np.uint8)
            image[:, :672, 0] = 150 + 10 * k
            image[:, 672:, 2] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode(None))
    return str(path)


def take(camera, count):
    frames = camera.frames()
    return [next(frames) for _ in range(count)]


def test_a_file_plays_over_and_over_on_an_even_grid_with_its_eyes_apart(video):
    camera = open_camera(CameraSettings(source='file', file=video, eye='both'))
    frames = take(camera, 8)
    camera.close()
    np.testing.assert_allclose(np.diff([f.stamp_ns for f in frames]), 1e9 / 30, atol=2)
    left, right = frames[0].images['left'], frames[0].images['right']
    assert left.shape == right.shape == (376, 672, 3)
    assert left[..., 0].mean() > 100 > left[..., 2].mean()
    assert right[..., 2].mean() > 100 > right[..., 0].mean()


def test_a_file_that_is_not_a_video_is_named(tmp_path):
    (tmp_path / 'x.mp4').write_text('no video')
    for path in (tmp_path / 'x.mp4', tmp_path / 'nothing.mp4'):
        with pytest.raises(GrootRosError, match=path.name):
            open_camera(CameraSettings(source='file', file=str(path)))


def test_v4l2_is_asked_for_both_eyes_and_wall_clock_stamps(monkeypatch, video, conf):
    asked = {}
    really_open = av.open

    def open_device(device, format, options, timeout):
        asked.update(options, device=device, format=format)
        return really_open(video)

    monkeypatch.setattr(uvc.av, 'open', open_device)
    camera = open_camera(
        CameraSettings(
            source='uvc', device='/dev/video7', resolution='VGA', fps=30, eye='right', calibration_file=conf
        )
    )
    frame = take(camera, 1)[0]
    assert asked['video_size'] == '1344x376'
    assert asked['timestamps'] == 'mono2abs'
    assert asked['device'] == '/dev/video7'
    assert list(frame.images) == ['right']
    assert frame.images['right'].shape == (376, 672, 3)
    assert camera.intrinsics['right'].fx > 300
    with pytest.raises(GrootRosError, match='check its cable'):
        take(camera, 100)


def test_a_missing_v4l2_device_says_how_to_find_it(tmp_path):
    with pytest.raises(GrootRosError, match='v4l2-ctl'):
        open_camera(CameraSettings(source='uvc', device=str(tmp_path / 'video9')))


@pytest.mark.parametrize(
    ('resolution', 'fps', 'match'), [('HD720', 100, '15 or 30 or 60'), ('HD4K', 30, 'HD2K, HD1080')]
)
def test_modes_that_no_zed_has_are_refused_with_those_it_has(resolution, fps, match):
    with pytest.raises(GrootRosError, match=match):
        check_mode(resolution, fps)


def test_rectified_points_are_where_the_pinhole_model_puts_them(conf):
    rectifier = StereoRectifier(conf, 'VGA')
    lens = rectifier.intrinsics('left')
    matrix = np.array([[350.5, 0, 333], [0, 350, 190], [0, 0, 1.0]])
    bend = np.array([-0.17, 0.025, 0.0004, -0.0003, 0.001])
    turns = cv2.stereoRectify(
        matrix,
        bend,
        np.array([[350.1, 0, 338], [0, 349.8, 186], [0, 0, 1.0]]),
        np.array([-0.168, 0.024, 0.0001, 0.0002, 0.0012]),
        (672, 376),
        cv2.Rodrigues(np.array([-0.002, 0.004, 0.001]))[0],
        np.array([[-119.9], [0.1], [-0.2]]),
        flags=cv2.CALIB_ZERO_DISPARITY,
        alpha=0,
    )
    for point in np.array([[0.3, -0.2, 1.0], [-0.4, 0.1, 1.0], [0.0, 0.0, 1.0]]):
        raw = np.zeros((376, 672, 3), np.uint8)
        ((u, v),) = cv2.projectPoints(point[None], np.zeros(3), np.zeros(3), matrix, bend)[0].reshape(-1, 2)
        cv2.circle(raw, (round(u * 16), round(v * 16)), 3 * 16, (255, 255, 255), -1, shift=4)
        rows, columns = np.nonzero(rectifier.apply('left', raw)[..., 0] > 128)
        x, y, z = turns[0] @ point
        assert columns.mean() == pytest.approx(lens.fx * x / z + lens.cx, abs=0.6)
        assert rows.mean() == pytest.approx(lens.fy * y / z + lens.cy, abs=0.6)


def test_a_calibration_of_another_camera_is_refused(conf, tmp_path):
    with pytest.raises(GrootRosError, match='HD720'):
        StereoRectifier(conf, 'HD720')
    with pytest.raises(GrootRosError, match=r'calib\.stereolabs'):
        StereoRectifier(str(tmp_path / 'none.conf'), 'VGA')


def test_a_frozen_image_is_noticed_and_noise_is_not():
    rng = np.random.default_rng(0)
    watch = FrozenImageMonitor(1.0)
    for k in range(100):
        watch.check(k * 33_000_000, rng.integers(0, 255, (48, 64, 3), np.uint8))
    still = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(GrootRosError, match='frozen'):
        for k in range(100, 200):
            watch.check(k * 33_000_000, still)
    assert k == 131


def names(*words):
    return SimpleNamespace(**{word: word for word in words})


class FakeSdk(types.ModuleType):
    """The calls of pyzed.sl that the driver makes, with a camera that is unplugged after some frames."""

    def __init__(self, fps=30, frames=5, opens='SUCCESS'):
        super().__init__('pyzed.sl')
        self.asked = {}
        count = [0]
        self.RESOLUTION = names('HD2K', 'HD1080', 'HD720', 'VGA')
        self.DEPTH_MODE = names('NONE', 'NEURAL')
        self.UNIT = names('METER')
        self.VIEW = names('LEFT', 'RIGHT')
        self.MEASURE = names('DEPTH')
        self.ERROR_CODE = names('SUCCESS', 'CAMERA_NOT_DETECTED')
        self.TIME_REFERENCE = names('IMAGE')
        self.RuntimeParameters = lambda enable_depth: SimpleNamespace(enable_depth=enable_depth)
        self.Mat = lambda: SimpleNamespace(data=None)
        sdk = self

        class InitParameters:
            def __init__(self, **options):
                sdk.asked.update(options)

            def set_from_serial_number(self, number):
                sdk.asked['serial_number'] = number

        class Camera:
            def open(self, parameters):
                return opens

            def grab(self, runtime):
                count[0] += 1
                return 'SUCCESS' if count[0] <= frames else 'CAMERA_NOT_DETECTED'

            def retrieve_image(self, mat, view):
                bgra = np.zeros((4, 6, 4), np.uint8)
                bgra[..., 0] = 10 + count[0]
                bgra[..., 2] = 200 if view == 'LEFT' else 100
                bgra[..., 3] = 255
                mat.get_data = lambda: bgra

            def retrieve_measure(self, mat, measure):
                mat.get_data = lambda: np.full((4, 6), 1.5, np.float32)

            def get_timestamp(self, reference):
                return SimpleNamespace(get_nanoseconds=lambda: count[0] * 33_000_000)

            def get_camera_information(self):
                lens = SimpleNamespace(fx=500.0, fy=501.0, cx=320.0, cy=180.0)
                calibration = SimpleNamespace(left_cam=lens, right_cam=lens)
                return SimpleNamespace(
                    camera_configuration=SimpleNamespace(fps=fps, calibration_parameters=calibration)
                )

            def close(self):
                pass

        self.InitParameters = InitParameters
        self.Camera = Camera


def install(monkeypatch, sdk):
    package = types.ModuleType('pyzed')
    package.sl = sdk
    monkeypatch.setitem(sys.modules, 'pyzed', package)
    monkeypatch.setitem(sys.modules, 'pyzed.sl', sdk)
    return sdk


def test_the_sdk_gives_rgb_of_both_eyes_with_its_own_stamps(monkeypatch):
    sdk = install(monkeypatch, FakeSdk())
    camera = open_camera(CameraSettings(eye='both', serial_number=42, depth=True))
    frames = take(camera, 2)
    assert [frame.stamp_ns for frame in frames] == [33_000_000, 66_000_000]
    assert frames[0].images['left'][0, 0].tolist() == [200, 0, 11]
    assert frames[0].images['right'][0, 0].tolist() == [100, 0, 11]
    assert frames[0].depth[0, 0] == 1.5
    assert camera.intrinsics['left'].fy == 501.0
    assert sdk.asked['serial_number'] == 42


def test_depth_is_off_unless_asked_for(monkeypatch):
    sdk = install(monkeypatch, FakeSdk())
    assert take(open_camera(CameraSettings()), 1)[0].depth is None
    assert sdk.asked['depth_mode'] == 'NONE'


def test_an_unplugged_zed_is_lost_with_a_sentence(monkeypatch):
    install(monkeypatch, FakeSdk(frames=3))
    monkeypatch.setattr('groot_ros.hardware.cameras.zed._SILENT_S', 0.05)
    with pytest.raises(GrootRosError, match='check its cable'):
        take(open_camera(CameraSettings()), 10)


def test_a_zed_at_another_rate_or_that_does_not_open_is_refused(monkeypatch):
    install(monkeypatch, FakeSdk(fps=15))
    with pytest.raises(GrootRosError, match='15 frames per second, not 30'):
        open_camera(CameraSettings())
    install(monkeypatch, FakeSdk(opens='CAMERA_NOT_DETECTED'))
    with pytest.raises(GrootRosError, match='CAMERA_NOT_DETECTED'):
        open_camera(CameraSettings())


def test_the_other_package_named_pyzed_is_recognised(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyzed', types.ModuleType('pyzed'))
    monkeypatch.setitem(sys.modules, 'pyzed.sl', None)
    with pytest.raises(GrootRosError, match='pip uninstall pyzed'):
        open_camera(CameraSettings())
    monkeypatch.setitem(sys.modules, 'pyzed', None)
    with pytest.raises(GrootRosError, match='get_python_api'):
        open_camera(CameraSettings())


def test_the_node_publishes_both_eyes_of_a_file(video, operator, start_node):
    start_node('camera_driver', source='file', file=video, eye='both', camera_name='side')
    images, infos = [], []
    operator.node.create_subscription(Image, 'side/right/image', images.append, 10)
    operator.node.create_subscription(CameraInfo, 'side/left/camera_info', infos.append, 10)
    assert operator.until(lambda: len(images) > 3 and len(infos) > 3)
    assert (images[0].width, images[0].height, images[0].encoding) == (672, 376, 'rgb8')
    assert images[0].header.frame_id == 'side_right_optical_frame'
    assert infos[0].width == 672
    assert not any(infos[0].k)


def test_each_source_of_the_table_can_be_loaded_and_an_unknown_one_is_named():
    for source in CAMERA_SOURCES.values():
        module, name = source.place.split(':')
        assert hasattr(importlib.import_module(module), name)
    with pytest.raises(
        GrootRosError, match="camera source 'webcam' is not known: use one of sdk, uvc, file, sim"
    ):
        open_camera(CameraSettings(source='webcam'))
    with pytest.raises(GrootRosError, match="eye 'middle' is not known"):
        open_camera(CameraSettings(eye='middle'))


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (FRAME_HEADER.pack(FRAME_MAGIC, 2**32 - 1, 2**32 - 1, 0), 'does not send frames'),
        (FRAME_HEADER.pack(FRAME_MAGIC, 0, 10, 0), 'does not send frames'),
        (b'HTTP/1.1 400 Bad Request, and so on', 'does not send frames'),
        (b'HTTP', 'closed the connection'),
        (FRAME_HEADER.pack(FRAME_MAGIC, 640, 480, 0) + b'half', 'closed the connection'),
    ],
)
def test_what_is_no_simulated_camera_is_refused(loopback, data, reason):
    with socket.create_server((loopback, 0)) as listener:
        camera = SimCamera(CameraSettings(host=loopback), listener.getsockname()[1])
        with listener.accept()[0] as connection:
            connection.sendall(data)
        with pytest.raises(GrootRosError, match=reason):
            next(camera.frames())
        camera.close()


def test_a_camera_that_the_simulated_cell_does_not_have_is_refused(loopback):
    with pytest.raises(GrootRosError, match="simulated camera 'side' is not known"):
        SimCamera(CameraSettings(host=loopback, sim_camera='side'))


@pytest.fixture
def camera_process(loopback, monkeypatch):
    """The camera process of a simulated cell at `loopback`, and the pipe that gives it states."""
    monkeypatch.setenv('MUJOCO_GL', 'egl')
    context = multiprocessing.get_context('spawn')
    pipe, other_end = context.Pipe()
    process = context.Process(target=run_camera, args=(other_end, loopback), daemon=True)
    process.start()
    other_end.close()
    assert pipe.recv_bytes() == b''
    yield pipe
    pipe.close()
    process.join(10.0)


def test_both_cameras_of_the_simulated_cell_show_the_same_instant(camera_process, loopback):
    small = {'sim_width': 320, 'sim_height': 240}
    cameras = {
        name: SimCamera(CameraSettings(host=loopback, sim_camera=name, **size))
        for name, size in {'zed': {}, 'wrist': small}.items()
    }
    state = Physics().data.qpos
    camera_process.send_bytes(np.int64(7).tobytes() + state.tobytes())
    frames = [next(camera.frames()) for camera in cameras.values()]
    assert [frame.stamp_ns for frame in frames] == [7, 7]
    images = [frame.images['left'] for frame in frames]
    assert [image.shape for image in images] == [(480, 640, 3), (240, 320, 3)]
    assert not np.array_equal(images[0][::2, ::2], images[1])
    fixed = cameras['zed'].intrinsics['left']
    assert (fixed.cx, fixed.cy) == (320, 240)
    assert fixed.fy == pytest.approx(240 / np.tan(np.deg2rad(25)))
    assert cameras['wrist'].intrinsics['left'].fy == pytest.approx(120 / np.tan(np.deg2rad(37.5)))
    for camera in cameras.values():
        camera.close()


def test_a_damaged_video_is_named(video, tmp_path):
    data = bytearray(Path(video).read_bytes())
    first = data.index(b'mdat') + 4
    end = data.index(b'moov') - 4
    data[(first + end) // 2 : end] = bytes(end - (first + end) // 2)
    (tmp_path / 'damaged.mp4').write_bytes(data)
    camera = open_camera(CameraSettings(source='file', file=str(tmp_path / 'damaged.mp4')))
    with pytest.raises(GrootRosError, match='damaged'):
        take(camera, 100)


def test_a_frame_without_a_stamp_is_a_lost_camera():
    camera = UvcCamera.__new__(UvcCamera)
    camera._device = '/dev/video9'
    camera._container = types.SimpleNamespace(decode=lambda video: [types.SimpleNamespace(pts=None)])
    with pytest.raises(GrootRosError, match=r'/dev/video9 was lost \(a frame has no stamp'):
        next(camera.frames())


@pytest.mark.parametrize('number', ['nan', 'inf', '1e400', 'x'])
def test_a_calibration_whose_numbers_give_no_image_is_refused(tmp_path, number):
    (tmp_path / 'SN1.conf').write_text(CONF.replace('fx=350.5', f'fx={number}'))
    with pytest.raises(GrootRosError, match='has no calibration'):
        StereoRectifier(str(tmp_path / 'SN1.conf'), 'VGA')
