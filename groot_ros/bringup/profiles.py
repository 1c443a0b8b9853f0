# SPDX-License-Identifier: Apache-2.0
"""The one description of which processes make a cell: `groot-ros up` and launch/*.launch.py both read it."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from groot_ros.bringup.option_values import (
    check_checkpoint,
    check_dataset,
    check_host,
    check_namespace,
    check_number,
    check_output_file,
    check_output_folder,
    check_parameter_file,
    check_port,
    check_prefix,
    check_python,
)
from groot_ros.embodiment_file import camera_sizes
from groot_ros.errors import GrootRosError, choose, nearest
from groot_ros.hardware import DEFAULT_ROBOT_IP
from groot_ros.hardware.cameras.sources import CAMERA_SOURCES
from groot_ros.inference.backends import BACKEND_NAMES, BACKENDS, GR00T_VERSIONS
from groot_ros.resources import DEFAULT_EMBODIMENT, share_directory
from groot_ros.settings import setting
from groot_ros.teleop.device import TELEOP_DEVICES, check_device, map_path, needs_terminal

# Port of the simulated cell's test interface: when it accepts connections, all servers of the cell do.
_SIM_READY_PORT = 40_000
_LOOPBACK = '127.0.0.1'
_DISCOVERY_VARIABLE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'
POLICIES = ('replay', *BACKENDS, 'remote', 'hold', 'scripted')
DISCOVERY_RANGES = ('localhost', 'subnet', 'system_default', 'off')


@dataclass
class Options:
    """The choices for a cell: options of `groot-ros up` and arguments of the launch files."""

    sim: bool = setting(False, 'use the simulated cell instead of hardware')
    robot_ip: str = setting(DEFAULT_ROBOT_IP, 'address of the robot; with sim, of the simulated cell')
    namespace: str = setting('', 'ROS namespace of all nodes, for several cells')
    tf_prefix: str = setting(
        '', 'what all frame_ids begin with, such as left_; empty for the namespace and an underscore'
    )
    discovery_range: str = setting(
        '',
        f'which computers find these nodes: {", ".join(DISCOVERY_RANGES)}; '
        f'empty for {_DISCOVERY_VARIABLE}, or localhost',
    )
    embodiment: str = setting(DEFAULT_EMBODIMENT, 'a name in config/embodiments, or the path of a YAML file')
    output_dir: str = setting('episodes', 'folder that the recorder writes episodes into')
    policy: str = setting(
        'replay',
        f'what commands the arm: replay (a dataset), {BACKEND_NAMES} (a checkpoint), '
        'remote (a model server) or hold (deploy)',
    )
    checkpoint: str = setting('', 'folder of the checkpoint (deploy)')
    policy_python: str = setting('', "the Python interpreter that has the checkpoint's libraries (deploy)")
    shadow: bool = setting(
        False, "compare the policy with the operator's commands, without commanding (collect, deploy)"
    )
    policy_host: str = setting('127.0.0.1', 'address of the model server (deploy, policy remote)')
    policy_port: int = setting(5555, 'port of the model server (deploy, policy remote)')
    policy_gr00t_version: str = setting(
        'n1.7', 'GR00T version of the model server: n1.5, n1.6 or n1.7 (deploy, policy remote)'
    )
    dataset: str = setting('', 'folder of the dataset to replay (deploy)')
    episode: int = setting(0, 'episode of that dataset, counted from 0 (deploy)')
    teleop: str = setting(
        '',
        f'what the operator commands with: {", ".join(TELEOP_DEVICES)} '
        '(collect; empty for joy, or for scripted with sim)',
    )
    teleop_map: str = setting(
        '', "map of that device: a name in config/teleop, or a path; empty for the device's own (collect)"
    )
    task: str = setting('', 'what the demonstrations show, or what the policy is to do, in words')
    camera: str = setting(
        '', f'camera source: {", ".join(CAMERA_SOURCES)}; empty for sdk, or for sim with sim'
    )
    episodes: int = setting(3, 'episodes that the scripted operator records (collect, with sim)')
    seed: int = setting(0, 'seed of the scripted operator (collect, with sim)')
    page: bool = setting(False, "serve the operator's page")
    page_host: str = setting(
        '127.0.0.1', "address of the operator's page; other machines reach any but this one, with a token"
    )
    page_port: int = setting(8090, "port of the operator's page")
    params_file: str = setting(
        '', 'ROS parameter file for all nodes; it overrides config/*.yaml, but not the options here'
    )
    truth: str = setting('', 'file for the true state of the simulated cell at every tick')


@dataclass
class Process:
    """One process: an executable of this package, its arguments and the parameters of its node.

    If `ready_at` (host, port) is given, the next process starts when a connection to it is accepted.
    A process that `restarts` is started again when it ends by itself; the end of any other ends the cell.
    A restarting process that never worked ends the cell too, unless it is `optional`.
    """

    executable: str
    parameters: dict[str, Any] = field(default_factory=dict)
    name: str = ''
    arguments: list[str] = field(default_factory=list)
    ready_at: tuple[str, int] | None = None
    restarts: bool = False
    optional: bool = False

    @property
    def node_name(self) -> str:
        """Name of the node: that of the executable, unless several of it run."""
        return self.name or self.executable


@dataclass(frozen=True)
class Profile:
    """A set of processes with a name; `launch/NAME.launch.py` starts the same ones."""

    build: Callable[[Options], list[Process]]
    description: str


def build_processes(profile: str, options: Options) -> list[Process]:
    """The processes of a profile in their starting order; they are stopped in the reverse order.

    Raises GrootRosError if the profile does not exist, or an option that it needs is missing or wrong.
    """
    if profile not in PROFILES:
        raise GrootRosError(f'There is no profile {profile!r}: choose one of {", ".join(PROFILES)}.')
    _check(options)
    processes = PROFILES[profile].build(options)
    return [*processes, _page(options)] if options.page else processes


def _check(options: Options) -> None:
    """Raises GrootRosError, which names the option, for a value that no profile can use.

    What is given is checked, even where the profile does not need it: it is a mistake all the same. Only the
    dataset may still be converted while a profile runs that does not replay it.
    """
    _check_choices(options)
    check_number('episode', options.episode, 0)
    check_number('episodes', options.episodes, 1)
    check_number('seed', options.seed, 0)
    check_port('policy_port', options.policy_port)
    check_port('page_port', options.page_port)
    check_host('robot_ip', options.robot_ip)
    check_host('policy_host', options.policy_host)
    check_namespace(options.namespace)
    check_prefix(options.tf_prefix)
    _check_files(options)


def _check_choices(options: Options) -> None:
    choose('policy', options.policy, POLICIES)
    choose('policy_gr00t_version', options.policy_gr00t_version, GR00T_VERSIONS)
    discovery_environment(options)
    if options.camera:
        choose('camera', options.camera, CAMERA_SOURCES)
    if options.teleop:
        check_device(options.teleop)
    if options.teleop_map:
        map_path(options.teleop_map)


def _check_files(options: Options) -> None:
    camera_sizes(options.embodiment)
    check_output_folder(options.output_dir)
    if options.params_file:
        check_parameter_file(options.params_file)
    if options.truth:
        check_output_file('truth', options.truth)
    if options.checkpoint:
        check_checkpoint(options.checkpoint, options.policy)
    if options.policy_python:
        check_python(options.policy_python)


def parameter_files(process: Process, options: Options) -> list[str]:
    """Parameter files of a node: config/EXECUTABLE.yaml if there is one, then the user's if there is one."""
    files = []
    shipped = share_directory() / 'config' / f'{process.executable}.yaml'
    if shipped.is_file():
        files.append(str(shipped))
    if options.params_file:
        files.append(options.params_file)
    return files


def discovery_environment(options: Options, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variable that keeps the nodes on this machine, unless the user has chosen another range.

    With ROS's own default everybody in the network could enable and command the arm. Raises GrootRosError if
    the option `discovery_range` is not one of DISCOVERY_RANGES.
    """
    chosen = options.discovery_range.lower()
    if chosen and chosen not in DISCOVERY_RANGES:
        raise GrootRosError(
            f'There is no discovery range {options.discovery_range!r}: '
            f'choose one of {", ".join(DISCOVERY_RANGES)}{nearest(chosen, DISCOVERY_RANGES)}.'
        )
    return {_DISCOVERY_VARIABLE: chosen.upper() or environment.get(_DISCOVERY_VARIABLE) or 'LOCALHOST'}


def accepts_connections(address: tuple[str, int]) -> bool:
    """Whether a server listens at (host, port)."""
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True


def _sim(options: Options) -> list[Process]:
    host = _host(options)
    arguments = ['--host', host]
    if options.truth:
        arguments += ['--truth', options.truth]
    return [Process('sim_cell', arguments=arguments, ready_at=(host, _SIM_READY_PORT))]


def _drivers(options: Options) -> list[Process]:
    robot = {'robot_ip': _host(options)}
    processes = _sim(options) if options.sim else []
    processes.append(Process('ur5e_driver', {**robot, 'tf_prefix': _tf_prefix(options)}))
    processes.append(Process('robotiq_driver', robot, restarts=True))
    return processes + _cameras(options)


def _cameras(options: Options) -> list[Process]:
    """One driver per camera of the embodiment. NAME/left/image and NAME/right/image belong to one camera."""
    eyes: dict[str, list[str]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for topic, size in camera_sizes(options.embodiment).items():
        name, *rest = topic.split('/')
        eyes.setdefault(name, []).extend(rest[:-1])
        sizes[name] = size
    source = options.camera or ('sim' if options.sim else 'sdk')
    processes = []
    for name, sides in eyes.items():
        parameters: dict[str, Any] = {
            'camera_name': name,
            'source': source,
            'host': _host(options),
            'embodiment': options.embodiment,
            'tf_prefix': _tf_prefix(options),
        }
        if source == 'sim':
            width, height = sizes[name]
            parameters |= {'sim_camera': name, 'sim_width': width, 'sim_height': height}
        if len(sides) > 1:
            parameters['eye'] = 'both'
        processes.append(Process('camera_driver', parameters, f'{name}_driver', restarts=True))
    return processes


def _record(options: Options) -> list[Process]:
    recorder = {'embodiment': options.embodiment, 'output_dir': options.output_dir}
    return [*_drivers(options), Process('recorder', recorder)]


def _collect(options: Options) -> list[Process]:
    processes = [*_record(options), _teleop(options)]
    if options.shadow:
        processes.append(_policy(options))
    return processes


def _teleop(options: Options) -> Process:
    source = options.teleop or ('scripted' if options.sim else 'joy')
    parameters = {
        'source': source,
        'map': options.teleop_map,
        'task': options.task,
        'tf_prefix': _tf_prefix(options),
    }
    check_device(source)
    if needs_terminal(source):
        command = f'ros2 run groot_ros teleop --ros-args -p source:={source}'
        raise GrootRosError(
            f'{source} needs a terminal of its own: start the profile record, '
            f'and run `{command}` in another terminal.'
        )
    if source == 'scripted':
        if not options.sim:
            raise GrootRosError(
                'The scripted operator works in the simulated cell only: '
                'add --sim, or choose another device with --teleop.'
            )
        parameters |= {'sim_host': _host(options), 'episodes': options.episodes, 'seed': options.seed}
    return Process('teleop', parameters)


def _deploy(options: Options) -> list[Process]:
    return [*_record(options), _policy(options)]


def _policy(options: Options) -> Process:
    """Raises GrootRosError if what the policy needs is not given or not there."""
    if options.policy == 'replay' and not options.dataset:
        raise GrootRosError(
            'The policy replay, which is the default, needs a dataset: give its folder with --dataset, '
            'or choose another --policy.'
        )
    if options.policy in BACKENDS and not options.checkpoint:
        raise GrootRosError(
            f'The policy {options.policy} needs a checkpoint: give its folder with --checkpoint.'
        )
    parameters: dict[str, Any] = {
        'embodiment': options.embodiment,
        'backend': options.policy,
        'task': options.task,
        'shadow': options.shadow,
        'tf_prefix': _tf_prefix(options),
    }
    if options.policy == 'replay':
        check_dataset(options.dataset, options.episode)
        parameters |= {'dataset': options.dataset, 'episode': options.episode}
    elif options.policy == 'remote':
        parameters |= {
            'host': options.policy_host,
            'port': options.policy_port,
            'gr00t_version': options.policy_gr00t_version,
        }
    elif options.policy in BACKENDS:
        parameters |= {'checkpoint': options.checkpoint, 'python': options.policy_python}
    return Process('policy_server', parameters)


def _page(options: Options) -> Process:
    """The operator's page. Nothing in the cell depends on it, so its end never ends the cell."""
    parameters = {
        'embodiment': options.embodiment,
        'page_host': options.page_host,
        'page_port': options.page_port,
        'episodes_dir': options.output_dir,
    }
    return Process('operator_page', parameters, restarts=True, optional=True)


def _tf_prefix(options: Options) -> str:
    """What frame_ids begin with: as chosen, else the namespace, so that two cells share no frame on /tf."""
    namespace = options.namespace.strip('/').replace('/', '_')
    return options.tf_prefix or (f'{namespace}_' if namespace else '')


def _host(options: Options) -> str:
    """Address of the robot. The simulated cell is on loopback unless another address is given."""
    return _LOOPBACK if options.sim and options.robot_ip == Options.robot_ip else options.robot_ip


PROFILES = {
    'sim': Profile(_sim, 'the simulated cell alone'),
    'drivers': Profile(_drivers, 'drivers of arm, gripper and cameras'),
    'record': Profile(_record, 'drivers and recorder: episodes are started and stopped by services'),
    'collect': Profile(_collect, 'drivers, recorder and teleoperation'),
    'deploy': Profile(_deploy, 'drivers, recorder and policy server'),
}
