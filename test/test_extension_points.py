# SPDX-License-Identifier: Apache-2.0
"""A camera source, a teleop device and a model backend are each a file, a line of a table, and the docs."""

import importlib
import subprocess
from pathlib import Path

import pytest

import groot_ros
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras import CAMERA_SOURCES, open_camera
from groot_ros.hardware.cameras.base import CameraSettings
from groot_ros.hardware.cameras.sources import CameraSource
from groot_ros.inference.backends import BACKENDS, BackendInfo
from groot_ros.inference.backends.warmup import example_observation
from groot_ros.inference.model_process import ModelProcess, ModelSettings
from groot_ros.teleop.device import TELEOP_DEVICES
from groot_ros.teleop.mapping import load_map
from groot_ros.teleop.operator import OperatorContext, open_operator

CAMERAS = 'groot_ros/hardware/cameras'
CHECKOUT = Path(groot_ros.__file__).resolve().parents[1]
CAMERA = """
class GreyCamera:
    def __init__(self, settings):
        self.settings = settings

    def frames(self):
        yield self.settings.file
"""
DEVICE = """
from groot_ros.inference.backends import BACKENDS, BackendInfo
from groot_ros.inference.backends.warmup import example_observation
from groot_ros.inference.model_process import ModelProcess, ModelSettings
from groot_ros.teleop.device import DeviceState

class Pedal:
    @classmethod
    def open(cls, context):
        return cls()

    def read(self):
        return DeviceState(0.0, {"0": 1.0}, frozenset({"1"}))

    def close(self):
        pass
"""
BACKEND = """
import numpy as np

from groot_ros.inference.protocol import Modality


class StillBackend:
    name = "still"

    def __init__(self, settings):
        self.settings = settings

    def modalities(self):
        keys = {"video": ["zed_camera"], "state": ["tcp_pose"], "action": ["delta"], "language": ["task"]}
        return {name: Modality([0], names) for name, names in keys.items()}

    def extra_info(self):
        return {}

    def get_action(self, observation, options):
        return {"delta": np.zeros((1, 4, 3))}, {}

    def reset(self):
        pass


def load(settings):
    return StillBackend(settings)
"""


@pytest.fixture
def new_module(tmp_path, monkeypatch):
    """Writes a module that can be imported by its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (tmp_path / f'{name}.py').write_text(text)
        return name

    return write


def files_that_name(word):
    """Files of the package and of its configuration that hold a word."""
    command = ['git', 'grep', '-lw', word, '--', 'groot_ros', 'config', 'launch', 'CMakeLists.txt']
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True).stdout.split()


def test_a_new_camera_source_is_a_file_and_a_line(new_module, monkeypatch):
    place = f'{new_module("grey_camera", CAMERA)}:GreyCamera'
    monkeypatch.setitem(CAMERA_SOURCES, 'grey', CameraSource(place, 'a grey image'))
    camera = open_camera(CameraSettings(source='grey', file='x.mp4'))
    assert list(camera.frames()) == ['x.mp4']


def test_a_new_teleop_device_is_a_file_a_map_and_a_line(new_module, monkeypatch, tmp_path):
    monkeypatch.setitem(TELEOP_DEVICES, 'pedal', f'{new_module("pedal", DEVICE)}:Pedal')
    text = (CHECKOUT / 'config/teleop/joy.yaml').read_text()
    (tmp_path / 'pedal.yaml').write_text(text)
    parameters = {
        'map': str(tmp_path / 'pedal.yaml'),
        'rate_hz': 40.0,
        'home_joints_rad': [-1.57, -1.57, -1.57, -1.57, 1.57, 0.0],
        'tcp_offset': [0.0, 0.0, 0.174, 0.0, 0.0, 0.0],
    }
    operator = open_operator(OperatorContext('pedal', parameters))
    assert operator is not None
    with pytest.raises(GrootRosError, match='pedal'):
        load_map('pedal')


def test_a_new_model_backend_is_a_file_and_a_line(new_module, monkeypatch):
    info = BackendInfo(new_module('still_backend', BACKEND), 'nothing', 'a model without motion')
    monkeypatch.setitem(BACKENDS, 'still', info)
    process = ModelProcess(ModelSettings('still', 'checkpoint'), load_embodiment('ur5e_robotiq_zed'), print)
    process.close()
    backend = importlib.import_module(BACKENDS['still'].module).load({'checkpoint': 'checkpoint'})
    rows = {'example_state': {'tcp_pose': [0.0] * 7}, 'image_sizes': {'zed_camera': [64, 48]}}
    action, _ = backend.get_action(example_observation(backend, rows), None)
    assert action['delta'].shape == (1, 4, 3)


@pytest.mark.parametrize(
    ('word', 'files'),
    [
        ('VideoFileCamera', {f'{CAMERAS}/video_file.py', f'{CAMERAS}/sources.py'}),
        ('Phone', {'groot_ros/teleop/phone.py', 'groot_ros/teleop/device.py'}),
        ('LeRobotBackend', {'groot_ros/inference/backends/lerobot.py'}),
    ],
)
def test_what_exists_is_named_in_its_own_file_and_in_the_table_only(word, files):
    if not (CHECKOUT / '.git').exists():
        pytest.skip('needs a git checkout')
    assert set(files_that_name(word)) == files
