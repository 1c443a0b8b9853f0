# SPDX-License-Identifier: Apache-2.0
"""Launch descriptions of the profiles in processes.py: every launch/*.launch.py is one call of `describe`."""

from dataclasses import fields

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from groot_ros.bringup.profiles import Options, Process, build_processes, parameter_files


def describe(profile: str, **defaults: object) -> LaunchDescription:
    """A launch description whose arguments are the fields of Options, such as sim:=true; `defaults` replace their defaults."""
    arguments = [
        DeclareLaunchArgument(
            option.name, default_value=str(defaults.get(option.name, option.default)).lower() if isinstance(option.default, bool)
            else str(defaults.get(option.name, option.default)), description=option.metadata['help'],
        )
        for option in fields(Options)
    ]  # fmt: skip
    return LaunchDescription(
        [*arguments, OpaqueFunction(function=lambda context: _nodes(profile, _options(context)))]
    )


def _options(context: LaunchContext) -> Options:
    values = {}
    for option in fields(Options):
        text = LaunchConfiguration(option.name).perform(context)
        values[option.name] = (
            text.lower() == 'true' if isinstance(option.default, bool) else type(option.default)(text)
        )
    return Options(**values)


def _nodes(profile: str, options: Options) -> list[Node]:
    return [_node(process, options) for process in build_processes(profile, options)]


def _node(process: Process, options: Options) -> Node:
    return Node(
        package='groot_ros',
        executable=process.executable,
        name=process.node_name,
        namespace=options.namespace,
        parameters=[
            *parameter_files(process, options),
            *([process.parameters] if process.parameters else []),
        ],
        arguments=process.arguments,
        output='screen',
        on_exit=Shutdown(reason=f'{process.executable} ended'),
    )
