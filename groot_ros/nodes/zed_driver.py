"""zed_driver: publishes one camera's images, stamped when they were exposed."""

import array
import threading
import time

from sensor_msgs.msg import CameraInfo, Image

from groot_ros.errors import GrootRosError
from groot_ros.hardware.camera import Camera, Frame, open_camera
from groot_ros.nodes.common import IMAGE_QOS, GrootNode, Parameter, run_node, time_of

PARAMETERS = {
    'source': Parameter('sdk', "'sdk' for a ZED with Stereolabs' SDK, 'sim' for the camera of sim_cell"),
    'camera_name': Parameter('zed', 'prefix of the topics: NAME/image and NAME/camera_info'),
    'sim_host': Parameter('127.0.0.1', 'address of sim_cell, for source sim'),
    'serial_number': Parameter(0, 'serial number of the ZED, 0 for the only one'),
    'resolution': Parameter('HD720', 'ZED resolution: HD2K, HD1080, HD720 or VGA'),
    'fps': Parameter(30.0, 'ZED frame rate: 15, 30, 60 or 100, as the resolution offers', 15.0, 100.0),
    'eye': Parameter('left', "'left' or 'right'"),
    'connect_timeout_s': Parameter(15.0, 'how long to wait for the first frame before giving up, s', 1.0, 600.0),
}


class ZedDriver(GrootNode):
    """A thread reads frames and publishes them; a lost camera is opened again."""

    def __init__(self) -> None:
        super().__init__('zed_driver', PARAMETERS)
        name = self.parameter('camera_name')
        self._frame_id = f'{name}_optical_frame'
        self._images = self.create_publisher(Image, f'{name}/image', IMAGE_QOS)
        self._infos = self.create_publisher(CameraInfo, f'{name}/camera_info', IMAGE_QOS)
        self._seen = False

    def open(self) -> None:
        """Starts the thread that opens the camera."""
        self._closing = threading.Event()
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._work, name='camera', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, which releases the camera."""
        self._closing.set()
        self._thread.join(3.0)

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self._publish_all(self._open())
            except GrootRosError as error:
                self._on_loss(str(error))
                self._closing.wait(1.0)

    def _open(self) -> Camera:
        keys = ('serial_number', 'resolution', 'fps', 'eye')
        return open_camera(self.parameter('source'), host=self.parameter('sim_host'), **{key: self.parameter(key) for key in keys})

    def _publish_all(self, camera: Camera) -> None:
        try:
            for frame in camera.frames():
                if self._closing.is_set() or not self.context.ok():
                    return
                self._publish(frame)
        finally:
            camera.close()

    def _publish(self, frame: Frame) -> None:
        height, width, _ = frame.image.shape
        message = Image(height=height, width=width, encoding='rgb8', step=3 * width)
        message.header.stamp, message.header.frame_id = time_of(frame.stamp_ns), self._frame_id
        pixels = array.array('B')  # the only type that the setter takes without looking at every byte
        pixels.frombytes(frame.image)
        message.data = pixels
        self.publish(self._images, message)
        self.publish(self._infos, CameraInfo(header=message.header, height=height, width=width))
        self._seen = True

    def _on_loss(self, reason: str) -> None:
        if not self._seen and time.monotonic() - self._began_s > self.parameter('connect_timeout_s'):
            self.fail(reason)
        self.warn(f'{reason} Trying again.')


def main() -> int:
    """Entry of `ros2 run groot_ros zed_driver`."""
    return run_node(ZedDriver)


if __name__ == '__main__':
    raise SystemExit(main())
