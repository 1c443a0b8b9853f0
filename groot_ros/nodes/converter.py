"""converter: `ros2 run groot_ros converter` takes the arguments of `groot-ros convert`."""

import sys

from groot_ros.cli import main as command_line


def main() -> int:
    """Entry of `ros2 run groot_ros converter`; arguments behind --ros-args are not for it."""
    arguments = sys.argv[1:]
    if '--ros-args' in arguments:
        arguments = arguments[: arguments.index('--ros-args')]
    return command_line(['convert', *arguments])


if __name__ == '__main__':
    raise SystemExit(main())
