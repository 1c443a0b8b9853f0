# SPDX-License-Identifier: Apache-2.0
"""Only groot_ros/nodes may know ROS, so that everything else runs and is tested without it."""

import ast
import sys
from pathlib import Path

import pytest

import groot_ros

PACKAGE = Path(groot_ros.__file__).resolve().parent
ROS = {
    'rclpy',
    'std_msgs',
    'sensor_msgs',
    'geometry_msgs',
    'std_srvs',
    'diagnostic_msgs',
    'builtin_interfaces',
    'rcl_interfaces',
    'launch',
    'launch_ros',
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or '')
    return names


@pytest.mark.parametrize(
    'path', sorted(PACKAGE.rglob('*.py')), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_ros_stays_in_nodes(path):
    inside = path.relative_to(PACKAGE).parts[:-1] in (('nodes',), ('ros',), ('sim', 'nodes'))
    names = imported(path)
    ros = {
        name
        for name in names
        if name.split('.')[0] in ROS or name.startswith(('groot_ros.msg', 'groot_ros.srv'))
    }
    assert inside or not ros, f'{path} imports {ros}'


def test_pure_folders_know_no_device_and_no_simulator():
    for folder, forbidden in {
        'control': ('hardware', 'sim', 'nodes'),
        'dataset': ('hardware', 'sim', 'nodes'),
        'bags': ('quality', 'dataset', 'hardware', 'sim', 'nodes'),
        'quality': ('dataset', 'hardware', 'sim', 'nodes'),
    }.items():
        for path in (PACKAGE / folder).glob('*.py'):
            for name in imported(path):
                assert not name.startswith(tuple(f'groot_ros.{other}' for other in forbidden)), (
                    f'{path} imports {name}'
                )


OURS_ANYWHERE = {'groot_ros.errors', 'groot_ros.inference.server', 'groot_ros.inference.protocol'}


def test_what_runs_in_a_models_python_needs_little():
    """A model's Python has numpy, msgpack and pyzmq of ours, and the model; each of our modules that is imported there may need no more."""
    allowed = {'numpy', 'msgpack', 'zmq', 'torch', 'lerobot', 'gr00t'} | sys.stdlib_module_names
    for path in [
        *(PACKAGE / 'inference/backends').glob('*.py'),
        *(PACKAGE / f'inference/{name}.py' for name in ('__init__', 'server', 'protocol')),
        PACKAGE / 'errors.py',
    ]:
        for name in imported(path):
            ours = name in OURS_ANYWHERE or name.startswith('groot_ros.inference.backends')
            assert ours or name.split('.')[0] in allowed, f'{path} imports {name}'


def test_calls_of_ur_rtde_that_lie_or_crash_are_not_made():
    """Traps of ur_rtde 1.6.5: answers of the command before, wrong registers, a reconnect that aborts, an endless script."""
    traps = {
        'getStepTime', 'getJointTorques', 'getActualJointPositionsHistory', 'toolContact', 'setExternalForceTorque', 'stopJ', 'reconnect',
        'sendCustomScript', 'sendCustomScriptFunction', 'moveUntilContact',
    }  # fmt: skip
    for path in (*(PACKAGE / 'hardware').rglob('*.py'), *(PACKAGE / 'nodes').glob('*.py')):
        called = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        assert not called & traps, f'{path} calls {called & traps}'
