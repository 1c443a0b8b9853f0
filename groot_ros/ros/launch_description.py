# SPDX-License-Identifier: Apache-2.0
"""Launch descriptions of the profiles in bringup/profiles.py, for launch/*.launch.py."""

from dataclasses import Field, fields
from functools import partial
from typing import Any

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
    TimerAction,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from groot_ros.bringup.option_values import read_option
from groot_ros.bringup.profiles import (
    Options,
    Process,
    accepts_connections,
    build_processes,
    discovery_environment,
    parameter_files,
)
from groot_ros.bringup.restarts import RESPAWN_DELAY_S
from groot_ros.errors import GrootRosError

_READY_PERIOD_S = 0.2


def describe(profile: str, **defaults: object) -> LaunchDescription:
    """A launch description whose arguments are the fields of Options, such as sim:=true.

    `defaults` replace the defaults of Options.
    """
    arguments = [
        _launch_argument(option, defaults.get(option.name, option.default)) for option in fields(Options)
    ]

    def add_nodes(context: LaunchContext) -> list[Action]:
        options = _read_options(context)
        variables = discovery_environment(options)
        return [
            *(SetEnvironmentVariable(name, value) for name, value in variables.items()),
            *_make_nodes(build_processes(profile, options), options),
        ]

    return LaunchDescription([*arguments, OpaqueFunction(function=add_nodes)])


def _launch_argument(option: Field, default: Any) -> DeclareLaunchArgument:
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return DeclareLaunchArgument(option.name, default_value=text, description=option.metadata['description'])


def _read_options(context: LaunchContext) -> Options:
    texts = {option.name: LaunchConfiguration(option.name).perform(context) for option in fields(Options)}
    return Options(**{option.name: read_option(option, texts[option.name]) for option in fields(Options)})


def _make_nodes(processes: list[Process], options: Options) -> list[Action]:
    """The nodes in their starting order; what follows a process with `ready_at` waits for it."""
    if not processes:
        return []
    first, *others = processes
    node = _make_node(first, options)
    if first.ready_at is None or not others:
        return [node, *_make_nodes(others, options)]
    return [node, _start_when_ready(first.ready_at, others, options)]


def _start_when_ready(address: tuple[str, int], processes: list[Process], options: Options) -> Action:
    """Starts processes as soon as a port accepts connections. A server that ends instead ends the launch."""

    def look(context: LaunchContext) -> list[Action]:
        if accepts_connections(address):
            return _make_nodes(processes, options)
        return [TimerAction(period=_READY_PERIOD_S, actions=[OpaqueFunction(function=look)])]

    return OpaqueFunction(function=look)


def _make_node(process: Process, options: Options) -> Node:
    """A node; cameras and gripper are started again, the end of any other ends the launch."""
    parameters: list[Any] = parameter_files(process, options)
    if process.parameters:
        parameters.append(process.parameters)
    return Node(
        package='groot_ros',
        executable=process.executable,
        name=process.node_name,
        namespace=options.namespace,
        parameters=parameters,
        arguments=process.arguments,
        output='screen',
        respawn=process.restarts,
        respawn_delay=RESPAWN_DELAY_S if process.restarts else None,
        on_exit=None if process.restarts else partial(_end_launch, process.executable),
    )


def _end_launch(executable: str, event: Any, context: LaunchContext) -> Shutdown:
    """Ends all processes with one that has ended. Raises if it failed: then `ros2 launch` returns 1."""
    if event.returncode and not context.is_shutdown:
        raise GrootRosError(
            f'{executable} ended with exit code {event.returncode}: see its messages above; '
            'the other processes are stopped.'
        )
    return Shutdown(reason=f'{executable} ended')
