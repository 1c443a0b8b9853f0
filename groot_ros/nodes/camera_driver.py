# SPDX-License-Identifier: Apache-2.0
"""camera_driver: publishes one camera's images and calibration, stamped when they were exposed."""

import array
import threading
import time
from dataclasses import fields

import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import EYES, Camera, CameraSettings, Frame, Intrinsics, open_camera
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec
from groot_ros.ros.qos import IMAGE_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.time import to_time_msg
from groot_ros.sampling.stream_monitor import Health, StreamMeter

PARAMETERS = {
    'source': ParameterSpec(
        'sdk',
        "'sdk': a ZED with Stereolabs' SDK; 'uvc': a ZED without it; 'sim': sim_cell; 'file': a video on disk",
    ),
    'camera_name': ParameterSpec(
        'zed',
        'prefix of the topics: NAME/image and NAME/camera_info; with both eyes NAME/left/... and NAME/right/...',
    ),
    'serial_number': ParameterSpec(0, 'serial number of the ZED, 0 for the only one, for source sdk'),
    'device': ParameterSpec('/dev/video0', 'V4L2 device, for source uvc'),
    'calibration_file': ParameterSpec(
        '', 'SN<serial>.conf of the ZED, to rectify the images of source uvc; empty leaves them raw'
    ),
    'file': ParameterSpec('', 'path of a video, for source file'),
    'host': ParameterSpec('127.0.0.1', 'address of sim_cell, for source sim'),
    'resolution': ParameterSpec('HD720', 'resolution of one eye: HD2K, HD1080, HD720 or VGA'),
    'fps': ParameterSpec(30.0, 'frame rate: 15, 30, 60 or 100, as the resolution offers', 1.0, 100.0),
    'eye': ParameterSpec('left', "'left', 'right' or 'both'"),
    'depth': ParameterSpec(False, 'publish NAME/depth too (32FC1, m), for source sdk; costs the GPU'),
    'frozen_s': ParameterSpec(
        2.0, 'open the camera anew when its image has not changed for so long, s; 0 never', 0.0, 60.0
    ),
    'connect_timeout_s': ParameterSpec(
        15.0, 'how long to wait for the first frame before giving up, s', 1.0, 600.0
    ),
}


class CameraDriver(GrootNode):
    """A thread reads frames and publishes them; a lost or frozen camera is opened again."""

    def __init__(self) -> None:
        super().__init__('camera_driver', PARAMETERS)
        self._settings = CameraSettings(
            **{field.name: self.parameter(field.name) for field in fields(CameraSettings)}
        )
        eyes = EYES.get(self._settings.eye, ())
        self._name = name = self.parameter('camera_name')
        prefixes = {eye: f'{name}/{eye}' if len(eyes) > 1 else name for eye in eyes}
        self._images = {
            eye: self.create_publisher(Image, f'{prefix}/image', IMAGE_QOS)
            for eye, prefix in prefixes.items()
        }
        self._infos = {
            eye: self.create_publisher(CameraInfo, f'{prefix}/camera_info', IMAGE_QOS)
            for eye, prefix in prefixes.items()
        }
        self._depth = (
            self.create_publisher(Image, f'{name}/depth', IMAGE_QOS) if self._settings.depth else None
        )
        self._meter = StreamMeter(f'{name}/image', self._settings.fps)
        self._seen = False
        self._loss = ''

    def configure(self) -> None:
        """Starts the thread that opens the camera."""
        self._closing = threading.Event()
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._work, name='camera', daemon=True)
        self._thread.start()

    def cleanup(self) -> None:
        """Ends the thread, which releases the camera."""
        self._closing.set()
        self._thread.join(3.0)

    def diagnose(self) -> list[Health]:
        """The stream of frames, and the reason where there is none."""
        health = self._meter.health(self.now_ns())
        return [Health(health.part, health.level, self._loss or health.text, health.values)]

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self._publish_all(open_camera(self._settings))
            except GrootRosError as error:
                self._on_loss(str(error))
                self._closing.wait(1.0)

    def _publish_all(self, camera: Camera) -> None:
        try:
            for frame in camera.frames():
                if self._closing.is_set() or not self.context.ok():
                    return
                self._publish(frame, camera.intrinsics)
        finally:
            camera.close()

    def _publish(self, frame: Frame, intrinsics: dict[str, Intrinsics]) -> None:
        self._meter.add(frame.stamp_ns, time.time_ns())
        for eye, image in frame.images.items():
            header = Header(stamp=to_time_msg(frame.stamp_ns), frame_id=f'{self._name}_{eye}_optical_frame')
            self.publish(self._images[eye], _image_message(header, image, 'rgb8'))
            self.publish(self._infos[eye], _info_message(header, image, intrinsics.get(eye)))
        if self._depth is not None and frame.depth is not None:
            header = Header(stamp=to_time_msg(frame.stamp_ns), frame_id=f'{self._name}_left_optical_frame')
            self.publish(self._depth, _image_message(header, frame.depth, '32FC1'))
        self._seen, self._loss = True, ''

    def _on_loss(self, reason: str) -> None:
        self._loss = reason
        if not self._seen and time.monotonic() - self._began_s > self.parameter('connect_timeout_s'):
            self.fail(reason)
        self.warn(f'{reason} Trying again.')


def _image_message(header: Header, image: np.ndarray, encoding: str) -> Image:
    message = Image(
        header=header, height=image.shape[0], width=image.shape[1], encoding=encoding, step=image.strides[0]
    )
    pixels = array.array('B')  # the only type that the setter takes without looking at every byte
    pixels.frombytes(image)
    message.data = pixels
    return message


def _info_message(header: Header, image: np.ndarray, lens: Intrinsics | None) -> CameraInfo:
    """Without intrinsics K is zero, which means uncalibrated."""
    message = CameraInfo(header=header, height=image.shape[0], width=image.shape[1])
    if lens is not None:
        message.distortion_model, message.d = 'plumb_bob', [0.0] * 5
        message.k = np.array([lens.fx, 0, lens.cx, 0, lens.fy, lens.cy, 0, 0, 1.0])
        message.r = np.eye(3).ravel()
        message.p = np.array([lens.fx, 0, lens.cx, 0, 0, lens.fy, lens.cy, 0, 0, 0, 1.0, 0])
    return message


def main() -> int:
    """Entry of `ros2 run groot_ros camera_driver`."""
    return run_node(CameraDriver)


if __name__ == '__main__':
    raise SystemExit(main())
