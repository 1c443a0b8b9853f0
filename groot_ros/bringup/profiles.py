# SPDX-License-Identifier: Apache-2.0
"""The one description of which processes make a cell: `groot-ros up` and launch/*.launch.py both read it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.inference.backends import BACKEND_NAMES, BACKENDS
from groot_ros.resources import DEFAULT_EMBODIMENT, share_directory

# Port of the simulated cell's test interface: once it answers, all of its servers do.
_SIM_READY_PORT = 40_000


@dataclass
class Options:
    """What can be chosen for a cell; every field is an option of `groot-ros up` and an argument of the launch files."""

    sim: bool = field(default=False, metadata={'help': 'run against the simulated cell instead of hardware'})
    robot_ip: str = field(
        default='192.168.1.100', metadata={'help': 'address of the robot; with sim, of the simulated cell'}
    )
    namespace: str = field(default='', metadata={'help': 'ROS namespace of all nodes, for several cells'})
    embodiment: str = field(
        default=DEFAULT_EMBODIMENT, metadata={'help': 'embodiment: a name, or the path of a YAML file'}
    )
    output_dir: str = field(
        default='episodes', metadata={'help': 'folder that the recorder writes episodes into'}
    )
    policy: str = field(
        default='replay',
        metadata={
            'help': f'what commands: replay, {BACKEND_NAMES} (a checkpoint), remote (a model server) or hold (deploy)'
        },
    )
    checkpoint: str = field(
        default='', metadata={'help': f'folder of the checkpoint (deploy, with policy {BACKEND_NAMES})'}
    )
    policy_python: str = field(
        default='', metadata={'help': "the Python that has the model's libraries (deploy, likewise)"}
    )
    shadow: bool = field(
        default=False,
        metadata={
            'help': 'compare the policy with what the operator does, and command nothing (collect, deploy)'
        },
    )
    policy_host: str = field(
        default='127.0.0.1', metadata={'help': 'address of the model server (deploy, with policy remote)'}
    )
    policy_port: int = field(default=5555, metadata={'help': 'its port'})
    policy_gr00t_version: str = field(
        default='n1.7', metadata={'help': 'release of GR00T whose wire it speaks: n1.5, n1.6 or n1.7'}
    )
    dataset: str = field(default='', metadata={'help': 'dataset to replay (deploy)'})
    episode: int = field(default=0, metadata={'help': 'episode of that dataset, counted from 0 (deploy)'})
    teleop: str = field(
        default='',
        metadata={
            'help': 'what the operator commands with: joy, spacenav, spacemouse, phone or scripted (collect)'
        },
    )
    teleop_map: str = field(
        default='',
        metadata={
            'help': "map of that device: a name in config/teleop, or a path; empty for the device's own"
        },
    )
    task: str = field(
        default='', metadata={'help': 'what the demonstrations show, or what the policy is to do, in words'}
    )
    camera: str = field(
        default='', metadata={'help': 'camera source: sdk, uvc, file or sim; empty for sdk, or sim with sim'}
    )
    episodes: int = field(
        default=3, metadata={'help': 'episodes that the scripted operator records (collect, with sim)'}
    )
    seed: int = field(default=0, metadata={'help': 'seed of the scripted operator'})
    params_file: str = field(
        default='', metadata={'help': 'ROS parameter file for all nodes, over the values above'}
    )
    truth: str = field(
        default='', metadata={'help': 'file for the true state of the simulated cell at every tick'}
    )


@dataclass
class Process:
    """One process: an executable of this package, its arguments and the parameters of its node.

    The next one starts once a connection to `ready_at`, if given, is accepted.
    """

    executable: str
    parameters: dict[str, Any] = field(default_factory=dict)
    name: str = ''
    arguments: list[str] = field(default_factory=list)
    ready_at: tuple[str, int] | None = None

    @property
    def node_name(self) -> str:
        """Name of the node: that of the executable unless several of it run."""
        return self.name or self.executable


def build_processes(profile: str, options: Options) -> list[Process]:
    """The processes of a profile, in the order in which they start; they are stopped in the reverse order."""
    if profile not in PROFILES:
        raise GrootRosError(f'There is no profile {profile!r}: choose one of {", ".join(PROFILES)}.')
    return PROFILES[profile][0](options)


def parameter_files(process: Process, options: Options) -> list[str]:
    """Parameter files of a node: the one in config/, then the user's own."""
    shipped = share_directory() / 'config' / f'{process.executable}.yaml'
    return [str(shipped)] * shipped.is_file() + [options.params_file] * bool(options.params_file)


def _sim(options: Options) -> list[Process]:
    arguments = ['--host', _host(options)] + (['--truth', options.truth] if options.truth else [])
    return [Process('sim_cell', arguments=arguments, ready_at=(_host(options), _SIM_READY_PORT))]


def _drivers(options: Options) -> list[Process]:
    return [
        *(_sim(options) if options.sim else []),
        Process('ur5e_driver', {'robot_ip': _host(options)}),
        Process('robotiq_driver', {'robot_ip': _host(options)}),
        *_cameras(options),
    ]


def _cameras(options: Options) -> list[Process]:
    """One driver for each camera of the embodiment; topics NAME/left/... and NAME/right/... are one camera with two eyes."""
    eyes: dict[str, list[str]] = {}
    for field_of_row in load_embodiment(options.embodiment).cameras:
        name, *rest = field_of_row.topic.split('/')
        eyes.setdefault(name, []).extend(rest[:-1])
    source = options.camera or ('sim' if options.sim else 'sdk')
    found = []
    for name, both in eyes.items():
        parameters = {'camera_name': name, 'source': source, 'host': _host(options)}
        found.append(
            Process(
                'camera_driver', parameters | ({'eye': 'both'} if len(both) > 1 else {}), f'{name}_driver'
            )
        )
    return found


def _record(options: Options) -> list[Process]:
    return [
        *_drivers(options),
        Process('recorder', {'embodiment': options.embodiment, 'output_dir': options.output_dir}),
    ]


def _collect(options: Options) -> list[Process]:
    source = options.teleop or ('scripted' if options.sim else 'joy')
    if source == 'scripted' and not options.sim:
        raise GrootRosError(
            'The scripted operator knows only the simulated cell: add --sim, or choose another device with --teleop.'
        )
    if source in ('keyboard', 'hand_guiding'):
        command = f'ros2 run groot_ros teleop --ros-args -p source:={source}'
        raise GrootRosError(
            f'A keyboard needs a terminal of its own: start the profile record, and in the other terminal `{command}`.'
        )
    teleop = {'source': source, 'map': options.teleop_map, 'task': options.task}
    if source == 'scripted':
        teleop |= {'sim_host': _host(options), 'episodes': options.episodes, 'seed': options.seed}
    return [*_record(options), Process('teleop', teleop), *([_policy(options)] if options.shadow else [])]


def _deploy(options: Options) -> list[Process]:
    if options.policy == 'replay' and not options.dataset:
        raise GrootRosError(
            'The profile deploy replays a dataset: give its folder as dataset, or another policy.'
        )
    if options.policy in BACKENDS and not options.checkpoint:
        raise GrootRosError(f'The policy {options.policy} needs a checkpoint: give its folder as checkpoint.')
    return [*_record(options), _policy(options)]


def _policy(options: Options) -> Process:
    policy = {
        'embodiment': options.embodiment,
        'backend': options.policy,
        'task': options.task,
        'shadow': options.shadow,
    }
    if options.policy == 'replay':
        policy |= {'dataset': options.dataset, 'episode': options.episode}
    elif options.policy == 'remote':
        policy |= {
            'host': options.policy_host,
            'port': options.policy_port,
            'gr00t_version': options.policy_gr00t_version,
        }
    elif options.policy in BACKENDS:
        policy |= {'checkpoint': options.checkpoint, 'python': options.policy_python}
    return Process('policy_server', policy)


def _host(options: Options) -> str:
    """The simulated cell is on loopback unless told otherwise."""
    return '127.0.0.1' if options.sim and options.robot_ip == Options().robot_ip else options.robot_ip


PROFILES: dict[str, tuple[Callable[[Options], list[Process]], str]] = {
    'sim': (_sim, 'the simulated cell alone'),
    'drivers': (_drivers, 'drivers of arm, gripper and camera'),
    'record': (_record, 'drivers and recorder: episodes by service'),
    'collect': (_collect, 'drivers, recorder and teleoperation'),
    'deploy': (_deploy, 'drivers, recorder and policy server'),
}
