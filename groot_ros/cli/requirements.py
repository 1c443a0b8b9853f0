# SPDX-License-Identifier: Apache-2.0
"""Which optional libraries a command needs, and what to install where one is missing."""

import importlib.util

from groot_ros.errors import GrootRosError

# Module: the extra of setup.py that brings it, and its name for pip.
LIBRARIES = {
    'PIL': ('report', 'pillow'),
    'jinja2': ('report', 'jinja2'),
    'matplotlib': ('report', 'matplotlib'),
    'msgpack': ('policy', 'msgpack'),
    'zmq': ('policy', 'pyzmq'),
    'aiohttp': ('page', 'aiohttp'),
    'h5py': ('hdf5', 'h5py'),
    'ray': ('ray', 'ray'),
    'fsspec': ('storage', 'fsspec'),
    'huggingface_hub': ('hub', 'huggingface_hub'),
    'mujoco': ('sim', 'mujoco'),
    'pyspacemouse': ('teleop', 'pyspacemouse'),
    'serial': ('robot', 'pyserial'),
    'pyrobotiqgripper': ('robot', 'pyrobotiqgripper'),
    'dashboard_client': ('robot', 'ur_rtde'),
    'rtde_control': ('robot', 'ur_rtde'),
    'rtde_receive': ('robot', 'ur_rtde'),
}
_NO_ROS = (
    'needs ROS 2, which this Python does not have: '
    'run `make setup` in a checkout, or build with colcon and source the workspace.'
)
_OF_ROS = ('rclpy', 'groot_ros', 'launch', 'ament_index_python')


def require_ros(what: str) -> None:
    """Raises GrootRosError if this Python has no ROS 2 or not the nodes of this package."""
    if missing_modules('rclpy', 'groot_ros.nodes'):
        raise GrootRosError(f'{what} {_NO_ROS}')


def require_report_libraries(what: str) -> None:
    """Raises GrootRosError if the libraries of HTML reports and plots are missing."""
    _require(what, 'jinja2', 'matplotlib', 'PIL')


def require_policy_libraries(what: str) -> None:
    """Raises GrootRosError if the libraries of GR00T's inference protocol are missing."""
    _require(what, 'zmq', 'msgpack')


def require_sim_libraries(what: str) -> None:
    """Raises GrootRosError if the library of the simulated cell is missing."""
    _require(what, 'mujoco')


def missing_modules(*names: str) -> list[str]:
    """Those of the modules that are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def explain_missing(what: str, *modules: str) -> str:
    """One sentence: which Python packages `what` lacks, and the command that installs them."""
    names = [module.split('.')[0] for module in modules]
    if any(name in _OF_ROS or name.endswith(('_msgs', '_srvs', '_interfaces')) for name in names):
        return f'{what} {_NO_ROS}'
    extras = sorted({LIBRARIES[name][0] for name in names if name in LIBRARIES})
    packages = ' '.join(LIBRARIES[name][1] if name in LIBRARIES else name for name in names)
    origin = f' (extra {", ".join(extras)} of groot_ros)' if extras else ''
    return f'{what} needs {", ".join(names)}: run pip install {packages}{origin}.'


def _require(what: str, *names: str) -> None:
    if missing := missing_modules(*names):
        raise GrootRosError(explain_missing(what, *missing))
