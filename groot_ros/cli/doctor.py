# SPDX-License-Identifier: Apache-2.0
"""`groot-ros doctor`: checks this machine, and packs what a colleague needs to help."""

import argparse
import io
import json
import os
import platform
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from groot_ros.argument_types import output_file
from groot_ros.cli.health import Check, check_machine
from groot_ros.cli.options import ParagraphHelp
from groot_ros.cli.output import add_output_options, say, write_json

_EPISODES_PACKED = 5
_LOGS_PACKED = 20
_MAX_LOG_BYTES = 1 << 20
_SMALL_FILES = ('verdict.json', 'metadata.yaml')
_VARIABLES = (
    'ROS_',
    'RMW_',
    'FASTRTPS_',
    'FASTDDS_',
    'RCUTILS_',
    'GROOT_ROS_',
    'AMENT_',
    'MUJOCO_GL',
    'LANG',
)
_SECRET = ('TOKEN', 'KEY', 'PASSWORD', 'SECRET')
_EXAMPLES = """examples:
  groot-ros doctor
  groot-ros doctor --robot-ip 192.168.1.100
  groot-ros doctor --bundle help.tar.gz --episodes episodes"""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'doctor',
        help='check this machine, and pack what a colleague needs to help',
        description='Checks Python, ROS 2, libraries, DDS file, real-time rights, encoders, disk and ports, '
        'and changes nothing. The exit code is 1 if a check fails; warnings do not count.',
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    command.add_argument(
        '--robot-ip', default='', metavar='IP', help='also try the ports of this robot; it does not move'
    )
    command.add_argument(
        '--episodes',
        type=Path,
        default=Path('episodes'),
        metavar='FOLDER',
        help='folder that the recorder writes episodes into (default episodes)',
    )
    command.add_argument(
        '--bundle',
        type=output_file('.tar.gz', '.gz', '.tgz'),
        metavar='FILE',
        help='pack the result, versions, ROS settings and logs, and verdicts of the last episodes into a '
        '.tar.gz; no images, no tokens',
    )
    add_output_options(command, 'the checks')
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Checks the machine. Returns 1 if a check failed."""
    checks = []
    for check in check_machine(options.episodes, options.robot_ip):
        checks.append(check)
        say(options, f'{check.level:5} {check.name}: {check.text}')
    write_json(options, [asdict(check) for check in checks])
    if options.bundle:
        write_bundle(options.bundle, checks, options.episodes, dict(os.environ))
        say(options, f'Written to {options.bundle}: look through it before you send it.')
    return 1 if any(check.level == 'fail' for check in checks) else 0


def write_bundle(path: Path, checks: list[Check], episodes: Path, environment: dict[str, str]) -> None:
    """Writes a .tar.gz of small texts: checks, versions, settings, logs, verdicts."""
    texts = {
        'doctor.json': json.dumps([asdict(check) for check in checks], indent=2),
        'system.txt': '\n'.join([platform.platform(), platform.version(), f'{os.cpu_count()} processors']),
        'packages.txt': '\n'.join(sorted(_packages())),
        'environment.txt': '\n'.join(sorted(shareable_settings(environment))),
    }
    with tarfile.open(path, 'w:gz') as bundle:
        for name, text in texts.items():
            _add(bundle, name, text.encode())
        for file in (*_newest_logs(environment), *_episode_files(episodes)):
            _add(bundle, f'{file.parent.name}/{file.name}', _tail(file))


def shareable_settings(environment: dict[str, str]) -> Iterator[str]:
    """The variables of ROS, DDS and groot_ros, as NAME=VALUE; the value of a secret is left out."""
    for name, value in environment.items():
        if name.startswith(_VARIABLES):
            secret = any(word in name for word in _SECRET)
            yield f'{name}={"(set, not shown)" if secret else value}'


def _packages() -> set[str]:
    return {f'{found.metadata["Name"]}=={found.version}' for found in metadata.distributions()}


def _newest_logs(environment: dict[str, str]) -> list[Path]:
    """The last log files of ROS nodes."""
    home = Path(environment.get('ROS_HOME') or Path.home() / '.ros')
    folder = Path(environment.get('ROS_LOG_DIR') or home / 'log')
    files = [file for file in folder.rglob('*.log') if file.is_file()] if folder.is_dir() else []
    return sorted(files, key=lambda file: file.stat().st_mtime)[-_LOGS_PACKED:]


def _episode_files(episodes: Path) -> list[Path]:
    folders = sorted(episodes.glob('episode_*'))[-_EPISODES_PACKED:]
    files = [folder / name for folder in folders for name in _SMALL_FILES]
    return [file for file in files if file.is_file()]


def _tail(file: Path) -> bytes:
    with file.open('rb') as stream:
        stream.seek(max(file.stat().st_size - _MAX_LOG_BYTES, 0))
        return stream.read(_MAX_LOG_BYTES)


def _add(bundle: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(f'groot_ros/{name}')
    entry.size = len(content)
    bundle.addfile(entry, io.BytesIO(content))
