# SPDX-License-Identifier: Apache-2.0
"""Launch descriptions of the profiles in bringup/profiles.py, for launch/*.launch.py."""

import time
from collections.abc import Callable
from dataclasses import Field, fields
from functools import partial
from typing import Any

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
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
from groot_ros.bringup.restarts import Restarts
from groot_ros.errors import GrootRosError
from groot_ros.supervised_process import describe_exit

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


def _make_node(process: Process, options: Options, restarts: Restarts | None = None) -> Node:
    """A node; cameras and gripper are started again, the end of any other ends the launch.

    The `respawn` of launch has neither a back-off nor, before Jazzy, a limit.
    """
    parameters: list[Any] = parameter_files(process, options)
    if process.parameters:
        parameters.append(process.parameters)
    if process.restarts:
        on_exit = _start_again(process, options, restarts or Restarts(has_worked=process.optional))
    else:
        on_exit = partial(_end_launch, process.node_name)
    return Node(
        package='groot_ros',
        executable=process.executable,
        name=process.node_name,
        namespace=options.namespace,
        parameters=parameters,
        arguments=process.arguments,
        output='screen',
        on_exit=on_exit,
    )


def _start_again(
    process: Process, options: Options, restarts: Restarts
) -> Callable[[Any, LaunchContext], list[Action]]:
    """What launch does when a camera or the gripper has ended: start it again after a delay, as `up` does.

    Raises GrootRosError if the cell needs it and it never worked: a parameter is wrong, or its device is not
    there.
    """
    name = process.node_name
    began_s = time.monotonic()

    def look(event: Any, context: LaunchContext) -> list[Action]:
        if context.is_shutdown:
            return []
        ended = describe_exit(event.returncode)
        delay_s = restarts.delay_after(time.monotonic() - began_s)
        if delay_s is not None:
            again = OpaqueFunction(function=lambda context: [_make_node(process, options, restarts)])
            text = f'{name} {ended}: it is started again in {delay_s:.0f} s, the others go on'
            return [LogInfo(msg=text), TimerAction(period=delay_s, actions=[again])]
        if restarts.has_worked:
            text = f'{name} {ended} too often and is not started again: the cell goes on without it'
            return [LogInfo(msg=text)]
        raise GrootRosError(f'{name} {ended}: see its messages above; the other processes are stopped.')

    return look


def _end_launch(name: str, event: Any, context: LaunchContext) -> Shutdown:
    """Ends all processes with one that has ended. Raises if it failed: then `ros2 launch` returns 1."""
    if event.returncode and not context.is_shutdown:
        raise GrootRosError(
            f'{name} {describe_exit(event.returncode)}: see its messages above; '
            'the other processes are stopped.'
        )
    return Shutdown(reason=f'{name} ended')
