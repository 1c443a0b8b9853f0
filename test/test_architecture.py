# SPDX-License-Identifier: Apache-2.0
"""What each folder may import: the house of docs/explanation/architecture.md, kept by reading the imports."""

import ast
import sys
from pathlib import Path

import pytest

import groot_ros

PACKAGE = Path(groot_ros.__file__).resolve().parent
ROOT = {path.stem for path in PACKAGE.glob('*.py')} - {'__init__'}
# Each folder imports only folders above it in this table, so that the graph has no circle.
# A camera or a teleop device of the simulator is loaded by name from a table: nothing else imports sim/.
ALLOWED = {
    'control': set(),
    'reports': set(),
    'video': set(),
    'sampling': {'video'},
    'bags': {'sampling', 'video'},
    'hardware': {'control'},
    'teleop': {'control'},
    'quality': {'bags', 'reports', 'sampling', 'video'},
    'recording': {'bags', 'quality', 'sampling', 'video'},
    'operator_page': {'bags', 'quality', 'recording', 'video'},
    'dataset': {'bags', 'quality', 'reports', 'sampling', 'video'},
    'training': {'bags', 'dataset', 'quality'},
    'small_policy': {'dataset', 'training', 'video'},
    'inference': {'small_policy'},
    'policies': {'bags', 'control', 'dataset', 'inference', 'reports', 'sampling', 'small_policy', 'video'},
    'bringup': {'hardware', 'inference', 'teleop'},
    'ros': {'bags', 'bringup', 'policies', 'sampling', 'video', 'teleop'},
    'cli': {
        'bags', 'bringup', 'dataset', 'hardware', 'inference', 'policies', 'quality', 'reports', 'ros',
        'training',
    },
    'sim': {
        'bags', 'bringup', 'control', 'dataset', 'hardware', 'inference', 'policies', 'reports', 'ros',
        'sampling', 'teleop', 'video',
    },
    'nodes': {
        'bags', 'cli', 'control', 'dataset', 'hardware', 'inference', 'operator_page', 'policies', 'quality',
        'recording', 'ros', 'sampling', 'teleop', 'video',
    },
}  # fmt: skip
# The node of the simulated cell and the commands that simulate: all else knows sim/ by names in tables only.
STARTS_THE_SIMULATOR = {'nodes/sim_cell.py', 'cli/closed_loop.py', 'cli/demo.py', 'cli/demonstrate.py'}
ROS = {
    'rclpy', 'std_msgs', 'sensor_msgs', 'geometry_msgs', 'std_srvs', 'diagnostic_msgs', 'builtin_interfaces',
    'rcl_interfaces', 'lifecycle_msgs', 'launch', 'launch_ros', 'tf2_msgs',
}  # fmt: skip
INTERFACES = ('groot_ros.msg', 'groot_ros.srv', 'groot_ros.action')
MODULES = sorted(PACKAGE.rglob('*.py'))


def imported(path: Path) -> set[str]:
    """Modules that a file imports, those within functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or '')
    return names


def folder_of(path: Path) -> str:
    """The folder in groot_ros/ that a module is in, '' for the root modules."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ''


def folders_imported(path: Path) -> set[str]:
    """The other folders of groot_ros/ that a module imports from."""
    found = set()
    for name in imported(path):
        if not name.startswith('groot_ros.') or name.startswith(INTERFACES):
            continue
        first = name.split('.')[1]
        found.add('' if first in ROOT else first)
    return found - {folder_of(path), ''}


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_ros_stays_in_nodes_and_their_helpers(path):
    inside = path.relative_to(PACKAGE).parts[:-1] in (('nodes',), ('ros',), ('sim', 'nodes'))
    ros = {name for name in imported(path) if name.split('.')[0] in ROS or name.startswith(INTERFACES)}
    assert inside or not ros, f'{path} imports {ros}'


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_folder_imports_only_what_the_table_allows(path):
    allowed = ALLOWED[folder_of(path)] if folder_of(path) else set()
    if str(path.relative_to(PACKAGE)) in STARTS_THE_SIMULATOR:
        allowed = allowed | {'sim'}
    assert folders_imported(path) <= allowed, f'{path} imports {folders_imported(path) - allowed}'


def test_every_folder_is_in_the_table_and_the_table_has_no_circle():
    assert {folder_of(path) for path in MODULES} - {''} == set(ALLOWED)
    placed: set[str] = set()
    for folder, below in ALLOWED.items():
        assert below <= placed, f'{folder} is above {below - placed}'
        placed.add(folder)


def test_root_modules_have_no_circle():
    imports = {
        name: {other for other in ROOT if f'groot_ros.{other}' in imported(PACKAGE / f'{name}.py')}
        for name in ROOT
    }
    placed: set[str] = set()
    while ready := {name for name, needed in imports.items() if name not in placed and needed <= placed}:
        placed |= ready
    assert placed == ROOT


MODEL_SIDE = ('__init__', 'server', 'protocol', 'observation_check', 'port_guard')
OURS_ANYWHERE = {'groot_ros.errors', *(f'groot_ros.inference.{name}' for name in MODEL_SIDE[1:])}


def test_what_runs_in_a_models_python_needs_little():
    """What a model's Python imports of ours needs numpy, msgpack, pyzmq and the model only."""
    allowed = {'numpy', 'msgpack', 'zmq', 'torch', 'lerobot', 'gr00t'} | sys.stdlib_module_names
    for path in [
        *(PACKAGE / 'inference/backends').glob('*.py'),
        *(PACKAGE / f'inference/{name}.py' for name in MODEL_SIDE),
        PACKAGE / 'errors.py',
    ]:
        for name in imported(path):
            ours = name in OURS_ANYWHERE or name.startswith('groot_ros.inference.backends')
            # The Python of the small policy has what our own network needs.
            ours |= path.stem == 'small' and name.startswith('groot_ros.small_policy')
            assert ours or name.split('.')[0] in allowed, f'{path} imports {name}'


def test_calls_of_ur_rtde_that_lie_or_crash_are_not_made():
    """Traps of ur_rtde 1.6.5: late answers, wrong registers, a reconnect that aborts, an endless script."""
    traps = {
        'getStepTime', 'getJointTorques', 'getActualJointPositionsHistory', 'toolContact',
        'setExternalForceTorque', 'stopJ', 'reconnect',
        'sendCustomScript', 'sendCustomScriptFunction', 'moveUntilContact',
    }  # fmt: skip
    for path in (*(PACKAGE / 'hardware').rglob('*.py'), *(PACKAGE / 'nodes').glob('*.py')):
        called = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        assert not called & traps, f'{path} calls {called & traps}'
