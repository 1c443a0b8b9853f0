# SPDX-License-Identifier: Apache-2.0
"""The checks of test_robot_env.sh, run by the Python of .venv in the sourced workspace, its only argument."""

import importlib
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import scipy

# Backends run in a model's own Python, and the ZED SDK brings its own module.
ABSENT = {'gr00t', 'lerobot', 'torch', 'pyzed', 'launch', 'launch_ros', 'teleop', 'pyspacemouse'}
TESTS = [
    'test/test_recorder.py',
    'test/test_episode_recorder.py',
    'test/test_conversion.py',
    'test/test_geometry.py',
]


def main() -> None:
    """Runs all checks; the first that fails ends the process with an exception."""
    workspace = Path(sys.argv[1])
    installed = workspace / 'install/groot_ros'
    print(f'numpy {numpy.__version__}, scipy {scipy.__version__}')
    assert (numpy.__version__, scipy.__version__) == ('2.3.5', '1.15.3')
    print(f'{import_all(installed)} modules import')
    executables = [*(installed / 'lib/groot_ros').glob('[a-z]*'), installed / 'bin/groot-ros']
    check_shebangs(executables, workspace / 'src/groot_ros/.venv/bin/python')
    print(f'{len(executables)} executables start with the Python of .venv')
    check_recorder(installed / 'lib/groot_ros/recorder')
    print('the installed recorder starts and stops')
    tests = [sys.executable, '-m', 'pytest', '-q', *TESTS]
    subprocess.run(tests, cwd=workspace / 'src/groot_ros', check=True)


def import_all(installed: Path) -> int:
    """Imports every module of the installed package and returns their number."""
    import groot_ros

    assert Path(groot_ros.__file__).is_relative_to(installed), groot_ros.__file__
    names = [module.name for module in pkgutil.walk_packages(groot_ros.__path__, 'groot_ros.')]
    for name in names:
        if name.endswith('__main__'):
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if str(error.name).split('.')[0] not in ABSENT:
                raise
    return len(names)


def check_shebangs(executables: list[Path], python: Path) -> None:
    """Each installed executable names the .venv's Python in its first line."""
    for path in executables:
        shebang = path.read_text().splitlines()[0]
        assert shebang == f'#!{python}', f'{path}: {shebang}'


def check_recorder(executable: Path) -> None:
    """Starts the installed recorder, waits until it holds its folder, and stops it with Ctrl-C."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([executable, '--ros-args', '-p', f'output_dir:={folder}'])
        deadline_s = time.monotonic() + 60.0
        while not (Path(folder) / '.recorder.lock').exists():
            assert process.poll() is None, f'the recorder ended with {process.returncode}'
            assert time.monotonic() < deadline_s, 'the recorder did not start within 60 s'
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


if __name__ == '__main__':
    main()
