# SPDX-License-Identifier: Apache-2.0
"""Checks that the optional libraries of a command are installed, before the command starts its work."""

import importlib.util

from groot_ros.errors import GrootRosError


def require_ros(what: str) -> None:
    """Raises GrootRosError if this Python has no ROS 2 or not the nodes of this package."""
    if missing_modules('rclpy', 'groot_ros.nodes'):
        raise GrootRosError(
            f'{what} needs ROS 2, which this Python does not have: '
            'run `make setup` in a checkout, or build with colcon and source the workspace.'
        )


def require_report_libraries(what: str) -> None:
    """Raises GrootRosError if the libraries of HTML reports and plots are missing."""
    _require(what, 'report', 'jinja2', 'matplotlib', 'PIL')


def require_policy_libraries(what: str) -> None:
    """Raises GrootRosError if the libraries of GR00T's inference protocol are missing."""
    _require(what, 'policy', 'zmq', 'msgpack')


def missing_modules(*names: str) -> list[str]:
    """Those of the modules that are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def _require(what: str, extra: str, *names: str) -> None:
    if missing := missing_modules(*names):
        raise GrootRosError(f'{what} needs {", ".join(missing)}: run pip install "groot_ros[{extra}]".')
