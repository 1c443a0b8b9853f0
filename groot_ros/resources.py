# SPDX-License-Identifier: Apache-2.0
"""Where the package's own files are: in a checkout, a pip installation or an ament prefix."""

import os
import sys
from pathlib import Path

from groot_ros.errors import GrootRosError

DEFAULT_EMBODIMENT = 'ur5e_robotiq_zed'
# Written next to a bag by the recorder, or by `groot-ros inspect`.
VERDICT_FILE = 'verdict.json'
REPORT_FILE = 'report.html'


def share_directory() -> Path:
    """The folder that holds config/ and msg/, of the same version as this code.

    Raises GrootRosError where the package is not whole.
    """
    package = Path(__file__).resolve().parent
    ament_prefixes = package.parents[1:]  # of PREFIX/lib/python3.12/site-packages/groot_ros
    candidates = [
        package.parent,
        package / 'share',
        *(folder / 'share/groot_ros' for folder in ament_prefixes),
    ]
    for candidate in candidates:
        if (candidate / 'config' / 'embodiments').is_dir():
            return candidate
    raise GrootRosError(
        f'groot_ros in {package} has no config/embodiments: install the package again with pip or colcon.'
    )


def prefixes() -> list[Path]:
    """Where ROS packages are installed: the sourced workspaces, then the prefix of this Python."""
    workspaces = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    return [Path(prefix) for prefix in (*workspaces, sys.prefix) if prefix]


def interface_files() -> dict[str, str]:
    """ROS name and text of every message that this package defines, such as groot_ros/msg/Row."""
    folder = share_directory() / 'msg'
    return {f'groot_ros/msg/{path.stem}': path.read_text() for path in sorted(folder.glob('*.msg'))}
