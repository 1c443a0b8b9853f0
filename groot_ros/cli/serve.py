# SPDX-License-Identifier: Apache-2.0
"""`groot-ros serve`: a model server that speaks GR00T's inference protocol."""

import argparse
import contextlib
import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from groot_ros.argument_types import port, whole_number
from groot_ros.cli.options import (
    ParagraphHelp,
    add_embodiment_option,
    add_gr00t_version_option,
    add_model_options,
)
from groot_ros.cli.output import add_output_options, say, write_json
from groot_ros.cli.requirements import require_policy_libraries
from groot_ros.errors import GrootRosError, nearest
from groot_ros.path_kind import describe_path

if TYPE_CHECKING:
    from groot_ros.embodiment import Embodiment
    from groot_ros.policies.policy import Policy

_HOLD = 'hold'
_DESCRIPTION = (
    "Serves a checkpoint over GR00T's inference protocol (ZMQ, msgpack). The model runs in the Python that "
    'has its libraries; it is loaded, warmed up, and started again if it dies. Two more models need no '
    'checkpoint and help to test a set-up: a dataset is served as its recorded actions, and `hold` as no '
    'motion. A dataset follows the time of the observations of our clients, and the clock for others. '
    'If the environment variable GROOT_ROS_API_TOKEN is set, requests must carry that token; an address '
    'that other machines reach needs it.'
)
_EXAMPLES = """examples:
  GROOT_ROS_API_TOKEN=... groot-ros serve outputs/checkpoint-10000 --python PATH --host 0.0.0.0
  groot-ros serve outputs/train/act_cube --python ~/lerobot/.venv/bin/python
  groot-ros serve datasets/cube --episode 3
  ros2 run groot_ros policy_server --ros-args -p backend:=remote -p host:=gpu-machine"""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'serve',
        help="serve a model over GR00T's inference protocol",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    command.add_argument(
        'model',
        metavar='MODEL',
        help='folder of a checkpoint (GR00T, LeRobot), folder of a dataset, the word hold, or the name of a '
        'policy of your own (entry point of the group groot_ros.policies)',
    )
    add_embodiment_option(command)
    command.add_argument(
        '--episode',
        type=whole_number(0),
        default=0,
        help='episode of the dataset, counted from 0 (default 0)',
    )
    command.add_argument(
        '--host', default='127.0.0.1', help='address to listen on (default 127.0.0.1: this machine only)'
    )
    command.add_argument(
        '--insecure',
        action='store_true',
        help='serve other machines without a token: anybody who reaches the port may use it',
    )
    command.add_argument('--port', type=port, default=5555, help='port (default 5555; 0 for any free port)')
    add_gr00t_version_option(command, 'the GR00T version whose reply format is used')
    add_model_options(command)
    add_output_options(command, 'model, host and port, once it answers,')
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serves the model until Ctrl-C. Raises GrootRosError if it cannot be loaded or ends by itself."""
    require_policy_libraries('groot-ros serve')
    _check_token(options.host, options.insecure)
    from groot_ros.embodiment import load_embodiment
    from groot_ros.inference.checkpoint_files import is_checkpoint
    from groot_ros.policies.builtin_policies import HoldPolicy
    from groot_ros.policies.own_policies import load_own_policy, own_policies
    from groot_ros.policies.replay_policy import ReplayPolicy

    embodiment = load_embodiment(options.embodiment)
    if options.model == _HOLD:
        return _serve_policy(HoldPolicy(embodiment), embodiment, options)
    own = own_policies()
    if options.model in own:
        return _serve_policy(load_own_policy(own[options.model], embodiment), embodiment, options)
    folder = Path(options.model).expanduser()
    if not folder.is_dir():
        words = [_HOLD, *own]
        raise GrootRosError(
            f'{folder} {describe_path(folder)}: give the folder of a checkpoint or of a dataset, or the word '
            f'{" or ".join(words)}{nearest(options.model, words)}.'
        )
    if (folder / 'meta' / 'info.json').is_file():
        return _serve_policy(ReplayPolicy(folder, options.episode, embodiment), embodiment, options)
    if not is_checkpoint(folder):
        raise GrootRosError(
            f'{folder} {describe_path(folder)}: give the folder of a checkpoint of GR00T or LeRobot, '
            'which has a config.json, or the folder of a dataset.'
        )
    return _serve_checkpoint(folder, embodiment, options)


def _check_token(host: str, insecure: bool) -> None:
    """Raises GrootRosError where other machines could use the model without a token."""
    from groot_ros.inference.protocol import TOKEN_VARIABLE

    if _is_loopback(host) or os.environ.get(TOKEN_VARIABLE) or insecure:
        return
    raise GrootRosError(
        f'Everybody who reaches {host} could use this model: set the environment variable {TOKEN_VARIABLE} '
        'here and where policy_server runs, or add --insecure on a network that you trust.'
    )


def _is_loopback(host: str) -> bool:
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, an interface, or `*`
        return False


def _tell_address(options: argparse.Namespace, name: str, port: int) -> None:
    say(options, f'{name} answers at {options.host}:{port}; Ctrl-C ends it.')
    write_json(options, {'model': name, 'host': options.host, 'port': port})
    sys.stdout.flush()


def _relay(options: argparse.Namespace, line: str) -> None:
    """Prints a line of the model's process, which is progress; why it ended is an error of its own."""
    if not options.quiet:
        print(line, file=sys.stderr, flush=True)


def _serve_policy(policy: 'Policy', embodiment: 'Embodiment', options: argparse.Namespace) -> int:
    """Serves a policy that needs no model, in this process."""
    from groot_ros.inference.protocol import TOKEN_VARIABLE
    from groot_ros.inference.server import Server
    from groot_ros.policies.local_backend import LocalBackend

    backend = LocalBackend(policy, embodiment)
    token = os.environ.get(TOKEN_VARIABLE, '')
    with contextlib.closing(policy):
        server = Server(backend, options.host, options.port, options.gr00t_version, token)
        _tell_address(options, policy.spec.name, server.port)
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    return 0


def _serve_checkpoint(folder: Path, embodiment: 'Embodiment', options: argparse.Namespace) -> int:
    """Runs the model in a process of its own and restarts it there."""
    from groot_ros.inference.model_process import ModelProcess, ModelSettings
    from groot_ros.policies.checkpoint import read_matching_checkpoint

    checkpoint = read_matching_checkpoint(folder, options.embodiment_tag, embodiment)
    settings = ModelSettings(
        backend=checkpoint.backend,
        checkpoint=str(folder),
        python=options.python,
        device=options.device,
        embodiment_tag=options.embodiment_tag,
        data_config=options.data_config,
        host=options.host,
        port=options.port,
        gr00t_version=options.gr00t_version,
    )
    process = ModelProcess(settings, embodiment, lambda line: _relay(options, line))
    try:
        process.wait()
        _tell_address(options, process.name, process.port)
        process.join()
    except KeyboardInterrupt:
        return 0
    finally:
        process.close()
    if process.was_killed:
        return 0
    raise GrootRosError(f'The model ended: {process.unavailable_reason()}.')
