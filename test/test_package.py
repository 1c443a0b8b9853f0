# SPDX-License-Identifier: Apache-2.0
"""package.xml and requirements-robot.txt name everything that groot_ros imports."""

import ast
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import groot_ros

PACKAGE = Path(groot_ros.__file__).resolve().parent
CHECKOUT = PACKAGE.parent
# Imports that rosdep installs. Every key is in rosdistro's rosdep/python.yaml with an Ubuntu package.
ROSDEP_KEYS = {
    'PIL': 'python3-pil',
    'cv2': 'python3-opencv',
    'h5py': 'python3-h5py',
    'jinja2': 'python3-jinja2',
    'matplotlib': 'python3-matplotlib',
    'msgpack': 'python3-msgpack',
    'numpy': 'python3-numpy',
    'scipy': 'python3-scipy',
    'tqdm': 'python3-tqdm',
    'yaml': 'python3-yaml',
    'zmq': 'python3-zmq',
}
# Imports whose distribution has another name.
DISTRIBUTIONS = {
    'PIL': 'pillow',
    'backports': 'backports.zstd',
    'cv2': 'opencv-python-headless',
    'dashboard_client': 'ur_rtde',
    'rtde_control': 'ur_rtde',
    'rtde_receive': 'ur_rtde',
    'yaml': 'PyYAML',
    'zmq': 'pyzmq',
}
# gr00t, lerobot, torch and transformers are in the model's own Python. The ZED SDK installs pyzed. The last
# two are for devices that not every robot has.
INSTALLED_BY_THE_USER = {
    'gr00t', 'huggingface_hub', 'lerobot', 'torch', 'transformers', 'safetensors', 'pyzed', 'teleop',
    'pyspacemouse',
}  # fmt: skip
# Also that of later Pythons.
STANDARD_LIBRARY = sys.stdlib_module_names | {'compression'}


def imports() -> dict[str, Path]:
    """The first part of every absolute import in groot_ros, with a file that has it."""
    found = {}
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            found.update({name.split('.')[0]: path for name in names})
    return found


IMPORTS = {
    name: path
    for name, path in imports().items()
    if name != 'groot_ros' and name not in STANDARD_LIBRARY and name not in INSTALLED_BY_THE_USER
}


def dependencies() -> set[str]:
    root = ElementTree.parse(CHECKOUT / 'package.xml').getroot()
    return {element.text for element in root if element.tag in ('depend', 'exec_depend')}


def requirements(name: str) -> dict[str, str]:
    lines = (CHECKOUT / name).read_text().splitlines()
    pins = [line.split('==') for line in lines if line and not line.startswith(('#', '-r'))]
    return {distribution.lower(): version for distribution, version in pins}


def is_ros(name: str) -> bool:
    return name in {'rclpy', 'launch', 'launch_ros', 'builtin_interfaces'} or bool(
        re.search(r'_(msgs|srvs|interfaces)$', name)
    )


@pytest.mark.parametrize('name', sorted(IMPORTS))
def test_every_import_is_a_dependency(name):
    where = IMPORTS[name].relative_to(CHECKOUT)
    if is_ros(name):
        assert name in dependencies(), f'{where} imports {name}: add it to package.xml'
        return
    distribution = DISTRIBUTIONS.get(name, name)
    assert distribution.lower() in requirements('requirements-robot.txt'), (
        f'{where} imports {name}: pin {distribution} in requirements-robot.txt'
    )
    if name in ROSDEP_KEYS:
        assert ROSDEP_KEYS[name] in dependencies(), f'{where} imports {name}: add it to package.xml'


def test_package_xml_names_no_python_library_that_nothing_imports():
    keys = {key for key in dependencies() if key.startswith('python3-')}
    assert keys == {ROSDEP_KEYS[name] for name in IMPORTS if name in ROSDEP_KEYS}


def test_numpy_and_scipy_are_pinned_together():
    """A scipy for numpy 1 does not import next to numpy 2, so a robot gets both from one file."""
    pins = requirements('requirements-robot.txt')
    assert {'numpy', 'scipy', 'matplotlib', 'opencv-python-headless'} <= pins.keys()
    assert not [name for name in pins if name.startswith('ros-')]


def test_the_wheels_of_ros_are_only_in_their_own_file():
    assert '-r requirements-robot.txt' in (CHECKOUT / 'requirements.txt').read_text().splitlines()
    assert not requirements('requirements.txt').keys() & requirements('requirements-robot.txt').keys()


def test_all_versions_of_the_package_are_the_same():
    xml = ElementTree.parse(CHECKOUT / 'package.xml').getroot().findtext('version')
    setup = re.search(r"version='([^']+)'", (CHECKOUT / 'setup.py').read_text())
    assert setup is not None
    assert groot_ros.__version__ == xml == setup[1]


def test_ruff_and_the_oldest_python_agree():
    target = tomllib.loads((CHECKOUT / 'pyproject.toml').read_text())['tool']['ruff']['target-version']
    assert f"python_requires='>={target[2]}.{target[3:]}'" in (CHECKOUT / 'setup.py').read_text()


LAUNCH_SCRIPT = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split('.')[0] in {absent}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
from groot_ros.bringup.profiles import PROFILES, Options, build_processes, parameter_files
options = Options(sim=True, policy='hold')
for profile in PROFILES:
    for process in build_processes(profile, options):
        parameter_files(process, options)
"""


def test_launch_files_need_no_library_of_the_virtual_environment():
    """`ros2 launch` runs with the Python of the system; only the nodes that it starts have the .venv."""
    absent = {name for name in IMPORTS if not is_ros(name) and name not in ROSDEP_KEYS}
    script = LAUNCH_SCRIPT.replace('{absent}', repr(absent))
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
