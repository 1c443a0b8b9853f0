# SPDX-License-Identifier: Apache-2.0
"""The checks of `groot-ros doctor`: each looks at one thing of this machine and changes nothing."""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from groot_ros import __version__
from groot_ros.cli.requirements import LIBRARIES
from groot_ros.errors import GrootRosError
from groot_ros.hardware.realtime import priority_problem
from groot_ros.resources import share_directory

_OLDEST_PYTHON = (3, 11)
_GIB = 1 << 30
_SHARED_MEMORY = Path('/dev/shm')
_DDS_PROFILES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
_ENCODERS = {'libx264': 'fail', 'libx265': 'warn', 'libsvtav1': 'warn'}
_MODEL_SERVER_PORT = 5555
# What the drivers connect to at the robot: dashboard, RTDE, script, gripper.
_ROBOT_PORTS = {'dashboard': 29999, 'RTDE': 30004, 'script': 30002, 'gripper': 63352}
_CONNECT_S = 1.0


@dataclass
class Check:
    """What a check found: pass, warn or fail, the thing, and a sentence with what to do."""

    level: str
    name: str
    text: str


def check_machine(folder: Path, robot_ip: str) -> Iterator[Check]:
    """All checks, one after the other; those of the robot only if its address is given."""
    yield check_python(sys.version_info[:2])
    yield check_config()
    yield check_ros(dict(os.environ))
    yield from check_libraries()
    yield check_dds_profile(dict(os.environ))
    yield check_shared_memory()
    yield check_realtime(priority_problem())
    yield from check_encoders()
    yield check_disk(folder)
    yield check_port(_MODEL_SERVER_PORT)
    if robot_ip:
        for name, port in _ROBOT_PORTS.items():
            yield check_robot_port(robot_ip, name, port)


def check_python(version: tuple[int, ...]) -> Check:
    """Whether this Python is new enough."""
    text = f'{platform.python_version()} at {sys.executable}, groot_ros {__version__}'
    if version < _OLDEST_PYTHON:
        return Check('fail', 'python', f'{text}: 3.11 or newer is needed')
    return Check('pass', 'python', text)


def check_config() -> Check:
    """Whether the package has its files."""
    try:
        return Check('pass', 'files', f'config/ is in {share_directory()}')
    except GrootRosError as error:
        return Check('fail', 'files', str(error))


def check_ros(environment: dict[str, str]) -> Check:
    """Whether nodes can start, and in which network they find each other."""
    if util.find_spec('rclpy') is None:
        return Check('warn', 'ROS 2', 'not there: convert, validate and evaluate work, the robot does not')
    names = ('ROS_DISTRO', 'RMW_IMPLEMENTATION', 'ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE')
    settings = ', '.join(f'{name}={environment.get(name) or "not set"}' for name in names)
    return Check('pass', 'ROS 2', settings)


def check_libraries() -> Iterator[Check]:
    """The optional libraries, by the extra that brings them."""
    for extra in sorted({extra for extra, _ in LIBRARIES.values()}):
        names = sorted({package for other, package in LIBRARIES.values() if other == extra})
        versions = {name: _version(name) for name in names}
        missing = [name for name, version in versions.items() if not version]
        if missing:
            yield Check('warn', f'extra {extra}', f'not installed: pip install {" ".join(missing)}')
        else:
            found = ', '.join(f'{name} {version}' for name, version in versions.items())
            yield Check('pass', f'extra {extra}', found)


def check_dds_profile(environment: dict[str, str]) -> Check:
    """Which file Fast DDS takes its settings from."""
    for name in _DDS_PROFILES:
        if file := environment.get(name):
            if Path(file).is_file():
                return Check('pass', 'DDS file', f'{file}, chosen by {name}')
            return Check('fail', 'DDS file', f'{name} names {file}, which does not exist: unset the variable')
    return Check('pass', 'DDS file', 'config/fastdds_2.xml or fastdds_3.xml of groot_ros')


def check_shared_memory() -> Check:
    """Whether the images of the cameras fit into the shared memory."""
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else 0
    text = f'{free / _GIB:.1f} GiB free in {_SHARED_MEMORY}'
    if free <= _GIB:
        return Check('warn', 'shared memory', f'{text}, 1 GiB is needed: images may delay arm messages')
    return Check('pass', 'shared memory', text)


def check_realtime(problem: str) -> Check:
    """Whether the arm's processes may have priority over other programs."""
    if problem:
        return Check('warn', 'real-time rights', problem)
    return Check('pass', 'real-time rights', 'the servo loop may run with real-time priority')


def check_encoders() -> Iterator[Check]:
    """Which video encoders the libraries of ffmpeg in PyAV have."""
    import av

    for name, level in _ENCODERS.items():
        there = name in av.codecs_available
        text = 'there' if there else 'not in this PyAV: install av from PyPI'
        yield Check('pass' if there else level, f'encoder {name}', text)


def check_disk(folder: Path) -> Check:
    """Whether there is room for episodes: about 0.1 GiB a minute with one camera."""
    existing = next(place for place in (folder, *folder.resolve().parents) if place.is_dir())
    free = shutil.disk_usage(existing).free / _GIB
    text = f'{free:.0f} GiB free for {folder}'
    if not os.access(existing, os.W_OK):
        return Check('fail', 'disk', f'{existing} cannot be written: change its permissions')
    if free < 1:
        return Check('fail', 'disk', f'{text}: free some space')
    return Check('warn' if free < 20 else 'pass', 'disk', text)


def check_port(port: int) -> Check:
    """Whether a port of this machine is free for a model server."""
    with socket.socket() as probe:
        try:
            probe.bind(('127.0.0.1', port))
        except OSError:
            text = f'in use: a model server may run already, or choose another --port than {port}'
            return Check('warn', f'port {port}', text)
    return Check('pass', f'port {port}', 'free')


def check_robot_port(robot_ip: str, name: str, port: int) -> Check:
    """Whether the robot accepts a connection, which is closed at once."""
    what = f'robot {name}'
    try:
        with socket.create_connection((robot_ip, port), _CONNECT_S):
            return Check('pass', what, f'{robot_ip}:{port} accepts connections')
    except OSError as error:
        reason = error.strerror or str(error)
        return Check('fail', what, f'{robot_ip}:{port} does not answer ({reason}): check cable and address')


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ''
