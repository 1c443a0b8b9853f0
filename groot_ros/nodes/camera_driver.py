# SPDX-License-Identifier: Apache-2.0
"""camera_driver: publishes one camera's images and calibration, stamped when they were exposed."""

import array
import threading
import time

import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from groot_ros.embodiment import Mount, load_embodiment
from groot_ros.errors import explain_error
from groot_ros.hardware.cameras import open_camera
from groot_ros.hardware.cameras.base import EYES, Camera, CameraSettings, Frame, Intrinsics
from groot_ros.hardware.loss_notice import LossNotice
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec, specs_from
from groot_ros.ros.qos import IMAGE_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.time import to_time_msg
from groot_ros.ros.transforms import FRAME_PARAMETERS, TransformPublisher, make_transform
from groot_ros.sampling.stream_monitor import Health, StreamMeter

_REOPEN_S = 1.0
_CLOSE_S = 3.0
PARAMETERS = {
    'camera_name': ParameterSpec(
        'zed',
        'prefix of the topics: NAME/image and NAME/camera_info; with both eyes NAME/left/... and so on',
    ),
    'connect_timeout_s': ParameterSpec(
        15.0, 'end with an error if no first frame arrives within this time, s', 1.0, 600.0
    ),
    'embodiment': ParameterSpec(
        '', "name or path of an embodiment, whose cameras' mounts are published on /tf_static; empty for none"
    ),
    **FRAME_PARAMETERS,
    **specs_from(CameraSettings),
}


class CameraDriver(GrootNode):
    """A thread reads frames and publishes them; a lost or frozen camera is opened again."""

    def __init__(self) -> None:
        super().__init__('camera_driver', PARAMETERS)
        self._settings: CameraSettings = self.settings(CameraSettings)
        self._name = self.parameter('camera_name')
        self._prefix = self.parameter('tf_prefix')
        self._transforms = TransformPublisher(self, static=True)
        self._image_publishers = {}
        self._info_publishers = {}
        topics = self._topic_prefixes()
        self._mounts = self._read_mounts({eye: f'{prefix}/image' for eye, prefix in topics.items()})
        for eye, prefix in topics.items():
            self._image_publishers[eye] = self.create_publisher(Image, f'{prefix}/image', IMAGE_QOS)
            self._info_publishers[eye] = self.create_publisher(CameraInfo, f'{prefix}/camera_info', IMAGE_QOS)
        self._depth_publisher = None
        if self._settings.depth:
            self._depth_publisher = self.create_publisher(Image, f'{self._name}/depth', IMAGE_QOS)
        self._meter = StreamMeter(f'{self._name}/image', self._settings.fps)
        self._began_s = time.monotonic()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_published = False
        self._has_mounts = False
        self._problem_text = ''
        self._loss_notice = LossNotice()

    def configure(self) -> None:
        """Starts the thread that opens the camera."""
        self._closing = threading.Event()  # a new one: a thread that hangs in a library keeps its own
        self._has_published = False
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(self._closing,), name='camera', daemon=True)
        self._thread.start()

    def cleanup(self) -> None:
        """Ends the thread, which releases the camera."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def diagnose(self) -> list[Health]:
        """The stream of frames, and the reason if there is none."""
        health = self._meter.health(self.now_ns())
        return [Health(health.part, health.level, self._problem_text or health.text, health.values)]

    def _topic_prefixes(self) -> dict[str, str]:
        eyes = EYES.get(self._settings.eye, ())
        if len(eyes) == 1:
            return {eyes[0]: self._name}
        return {eye: f'{self._name}/{eye}' for eye in eyes}

    def _read_mounts(self, topics: dict[str, str]) -> dict[str, Mount]:
        """The mount of each eye whose topic is a camera of the embodiment with a mount."""
        if not self.parameter('embodiment'):
            return {}
        cameras = load_embodiment(self.parameter('embodiment')).cameras
        mounts = {camera.topic: camera.mount for camera in cameras if camera.mount is not None}
        return {eye: mounts[topic] for eye, topic in topics.items() if topic in mounts}

    def _run(self, closing: threading.Event) -> None:
        while not closing.is_set():
            try:
                self._publish_frames(open_camera(self._settings), closing)
            except Exception as error:  # the libraries of cameras may raise anything: it is opened again
                self._on_loss(explain_error(error))
                closing.wait(_REOPEN_S)

    def _publish_frames(self, camera: Camera, closing: threading.Event) -> None:
        try:
            for frame in camera.frames():
                if closing.is_set() or not self.context.ok():
                    return
                self._publish(frame, camera.intrinsics)
        finally:
            camera.close()

    def _publish(self, frame: Frame, intrinsics: dict[str, Intrinsics]) -> None:
        self._meter.add(frame.stamp_ns, time.time_ns())
        for eye, image in frame.images.items():
            header = self._header(frame.stamp_ns, eye)
            self.publish(self._image_publishers[eye], _image_message(header, image, 'rgb8'))
            self.publish(self._info_publishers[eye], _info_message(header, image, intrinsics.get(eye)))
        if self._depth_publisher is not None and frame.depth is not None:
            header = self._header(frame.stamp_ns, 'left')
            self.publish(self._depth_publisher, _image_message(header, frame.depth, '32FC1'))
        self._publish_mounts(frame.stamp_ns)
        self._has_published = True
        self._problem_text = ''
        self._loss_notice.works(time.monotonic())

    def _header(self, stamp_ns: int, eye: str) -> Header:
        return Header(stamp=to_time_msg(stamp_ns), frame_id=self._frame_of(eye))

    def _frame_of(self, eye: str) -> str:
        return f'{self._prefix}{self._name}_{eye}_optical_frame'

    def _publish_mounts(self, stamp_ns: int) -> None:
        """Publishes once, with the first frame of an active node, where the camera is mounted."""
        if self._has_mounts or not self._mounts or not self.active:
            return
        self._has_mounts = True
        stamp = to_time_msg(stamp_ns)
        self._transforms.publish(
            [
                make_transform(stamp, self._prefix + mount.frame, self._frame_of(eye), mount.pose)
                for eye, mount in self._mounts.items()
            ]
        )

    def _on_loss(self, reason: str) -> None:
        self._problem_text = reason
        waited_s = time.monotonic() - self._began_s
        if not self._has_published and waited_s > self.parameter('connect_timeout_s'):
            self.fail(reason)
        if self._loss_notice.lost(time.monotonic()):
            self.warn(f'{reason} Trying again.')


def _image_message(header: Header, image: np.ndarray, encoding: str) -> Image:
    message = Image(
        header=header, height=image.shape[0], width=image.shape[1], encoding=encoding, step=image.strides[0]
    )
    pixels = array.array('B')  # the only type that the setter takes without a check of every byte
    pixels.frombytes(image)
    message.data = pixels
    return message


def _info_message(header: Header, image: np.ndarray, lens: Intrinsics | None) -> CameraInfo:
    """CameraInfo of a rectified image. Without intrinsics K is zero, which means uncalibrated."""
    message = CameraInfo(header=header, height=image.shape[0], width=image.shape[1])
    if lens is not None:
        message.distortion_model = 'plumb_bob'
        message.d = [0.0] * 5
        message.k = np.array([lens.fx, 0, lens.cx, 0, lens.fy, lens.cy, 0, 0, 1.0])
        message.r = np.eye(3).ravel()
        message.p = np.array([lens.fx, 0, lens.cx, 0, 0, lens.fy, lens.cy, 0, 0, 0, 1.0, 0])
    return message


def main() -> int:
    """Entry of `ros2 run groot_ros camera_driver`."""
    return run_node(CameraDriver)


if __name__ == '__main__':
    raise SystemExit(main())
