# SPDX-License-Identifier: Apache-2.0
"""What pip installs on a workstation without ROS: config/ in the package, and the needed libraries only."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import groot_ros
from groot_ros.cli.requirements import LIBRARIES

CHECKOUT = Path(groot_ros.__file__).resolve().parents[1]


def setup_argument(name: str):
    tree = ast.parse((CHECKOUT / 'setup.py').read_text())
    keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    return next(ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg == name)


def distribution_name(requirement: str) -> str:
    return re.match(r'[\w.-]+', requirement)[0]


def required_distributions(names: list[str]) -> dict[str, metadata.Distribution]:
    """The distributions and all that they need, without their extras."""
    found = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # a marker excludes it here, such as colorama for Windows
        if distribution.metadata['Name'] in found:
            continue
        found[distribution.metadata['Name']] = distribution
        waiting += [distribution_name(text) for text in distribution.requires or [] if 'extra ==' not in text]
    return found


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel holds, and links to the libraries of install_requires, to no others."""
    folder = tmp_path_factory.mktemp('installed')
    source = tmp_path_factory.mktemp('source')
    for name in ('groot_ros', 'config', 'msg'):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml'):
        shutil.copy(CHECKOUT / name, source)
    command = [sys.executable, 'setup.py', '-q', 'build', '--build-lib', str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    names = [distribution_name(requirement) for requirement in setup_argument('install_requires')]
    for distribution in required_distributions(names).values():
        for first in {file.parts[0] for file in distribution.files or [] if file.parts[0] != '..'}:
            link = folder / first
            target = Path(distribution.locate_file(first))
            if target.exists() and not link.exists():
                link.symlink_to(target)
    return folder


@pytest.fixture
def groot(installed, tmp_path):
    """Runs the installed command in another folder, in a Python that has no other libraries."""

    def run(*arguments) -> subprocess.CompletedProcess:
        code = 'import sys; from groot_ros.cli.main import main; sys.exit(main())'
        command = [sys.executable, '-S', '-c', code, *map(str, arguments)]
        clean = {'PATH': os.environ['PATH'], 'PYTHONPATH': str(installed)}
        return subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)

    return run


def test_the_installation_has_every_config_file_and_message(installed):
    share = installed / 'groot_ros' / 'share'
    for name, patterns in (('config', ('*.yaml', '*.xml', '*.json')), ('msg', ('*.msg',))):
        for pattern in patterns:
            expected = {path.relative_to(CHECKOUT) for path in (CHECKOUT / name).rglob(pattern)}
            assert {path.relative_to(share) for path in (share / name).rglob(pattern)} == expected


def test_an_installation_finds_its_embodiments_from_another_folder(groot):
    done = groot('modality-config', '--embodiment', 'so101_dualcam')
    assert (done.returncode, done.stderr) == (0, '')


def test_a_bag_is_inspected_and_converted_without_the_optional_libraries(groot, bags, tmp_path):
    done = groot('inspect', bags / 'episode_000000')
    assert 'episode_000000: ' in done.stdout, done.stderr
    done = groot('convert', bags, '--output', tmp_path / 'dataset', '--keep-failed')
    assert done.returncode == 0, done.stderr
    done = groot('validate', tmp_path / 'dataset')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (
            ['serve', 'hold'],
            'serve needs zmq, msgpack: run pip install pyzmq msgpack (extra policy of groot_ros).',
        ),
        (['evaluate', '.'], 'groot-ros evaluate needs zmq, msgpack: run pip install'),
        (['inspect', 'checkpoint'], 'groot-ros inspect needs msgpack: run pip install msgpack'),
        (
            ['validate', '.', '--report', 'x.html'],
            'groot-ros validate --report needs jinja2, matplotlib, PIL',
        ),
        (['demo'], 'groot-ros demo needs ROS 2'),
        (['up', 'sim'], 'groot-ros up needs ROS 2'),
    ],
)
def test_a_command_says_what_it_lacks(groot, tmp_path, arguments, expected):
    (tmp_path / 'checkpoint').mkdir()
    (tmp_path / 'checkpoint' / 'config.json').write_text('{}')
    done = groot(*arguments)
    assert done.returncode == 1
    assert expected in done.stderr
    assert done.stderr.count('\n') == 1


def test_every_extra_that_is_recommended_brings_the_library():
    extras = setup_argument('extras_require')
    for extra, distribution in LIBRARIES.values():
        names = [distribution_name(requirement).lower() for requirement in extras[extra]]
        assert distribution in names
