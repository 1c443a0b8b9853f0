# SPDX-License-Identifier: Apache-2.0
"""The command `groot-ros`: one subcommand a job, errors in one sentence, exit code 0 only when all is well."""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from groot_ros import __version__
from groot_ros.bringup.profiles import PROFILES, Options
from groot_ros.dataset.options import add_conversion_options, conversion_from_args
from groot_ros.errors import GrootRosError
from groot_ros.inference.protocol import TOKEN_VARIABLE
from groot_ros.resources import DEFAULT_EMBODIMENT


class _Help(argparse.HelpFormatter):
    """Wraps what is one paragraph, and leaves examples and tables as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if '\n' in text else super()._fill_text(text, width, indent)


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except GrootRosError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        where = f' {error.filename}' if error.filename else ''
        print(
            f'error: {error.strerror}{where}: make room or choose another folder; nothing half-written was left.',
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print('stopped; nothing half-written was left.', file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog='groot-ros',
        description='From demonstrations on a UR5e to GR00T datasets, and back to the robot.',
        epilog='Each command explains itself: groot-ros COMMAND --help',
    )
    top.add_argument('--version', action='version', version=__version__)
    commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')
    _add_up(commands)
    _add_convert(commands)
    _add_validate(commands)
    _add_modality_config(commands)
    _add_inspect(commands)
    _add_serve(commands)
    _add_evaluate(commands)
    _add_recover(commands)
    _add_demo(commands)
    return top


def _add_up(commands) -> None:
    profiles = '\n'.join(f'  {name:9} {text}' for name, (_, text) in PROFILES.items())
    command = commands.add_parser(
        'up',
        help='start the processes of a cell',
        description='Starts the processes of a profile and stops them in order on Ctrl-C.\n\nprofiles:\n'
        + profiles,
        epilog='examples:\n  groot-ros up collect --sim --output-dir episodes\n  groot-ros up record --robot-ip 192.168.1.100\n\n'
        'Nothing moves before someone calls ur5e_driver/enable.',
        formatter_class=_Help,
    )
    command.add_argument('profile', choices=PROFILES)
    for option in fields(Options):
        flag, text = f'--{option.name.replace("_", "-")}', option.metadata['help']
        if isinstance(option.default, bool):
            command.add_argument(flag, action='store_true', help=text)
        else:
            shown = f' (default {option.default})' if option.default != '' else ''
            command.add_argument(flag, type=type(option.default), default=option.default, help=text + shown)
    command.set_defaults(run=_up)


def _add_convert(commands) -> None:
    command = commands.add_parser(
        'convert',
        help='make a GR00T dataset of bags, HDF5 files or LeRobot datasets',
        description='Converts recordings to a LeRobot v2.1 dataset that GR00T N1.5, N1.6 and N1.7 read. Video packets of our recorder are copied, '
        'not decoded; bags of other recorders are sampled as ours would have sampled them, and encoded; HDF5 (Isaac Lab, Mimic) and LeRobot v2 '
        'datasets with other columns are read as the embodiment says. The dataset is written whole or not at all.',
        epilog='examples:\n  groot-ros convert episodes --output datasets/cube_in_bin --embodiment ur5e_robotiq_zed --workers 2\n'
        '  groot-ros convert teleop.hdf5 --output datasets/card --embodiment franka_mcx --task "insert the card"\n'
        '  groot-ros convert episodes --output datasets/cube_in_bin --append',
        formatter_class=_Help,
    )
    command.add_argument(
        'sources',
        nargs='+',
        metavar='SOURCE',
        help='bags, HDF5 files, LeRobot datasets, folders of them, s3://... of bags',
    )
    command.add_argument('--output', required=True, type=Path, help='folder of the dataset')
    add_conversion_options(command)
    command.add_argument('--json', type=Path, metavar='FILE', help='write what was done to a file')
    command.add_argument(
        '--report',
        type=Path,
        metavar='FILE',
        help='then validate the dataset, and write its page (see groot-ros validate)',
    )
    command.set_defaults(run=_convert)


def _add_validate(commands) -> None:
    command = commands.add_parser(
        'validate',
        help='check a dataset before training on it',
        description="Refuses what breaks GR00T's loader and what the loader accepts silently though training would suffer. "
        'Exit code 0 when no error was found; warnings do not count.',
    )
    command.add_argument('dataset', type=Path, help='folder of the dataset')
    command.add_argument('--horizon', type=int, default=16, help='action horizon of the model (default 16)')
    command.add_argument(
        '--gr00t-version', default='n1.7', help='n1.5, n1.6 or n1.7: whose limits count (default n1.7)'
    )
    command.add_argument('--json', type=Path, metavar='FILE', help='write the findings to a file')
    command.add_argument(
        '--report',
        type=Path,
        metavar='FILE',
        help='write a page: episodes, frames, distribution and range of every dimension',
    )
    command.set_defaults(run=_validate)


def _add_modality_config(commands) -> None:
    command = commands.add_parser(
        'modality-config',
        help='make the config file that GR00T reads beside a dataset',
        description='Writes the Python file that tells GR00T N1.5, N1.6 or N1.7 what the columns of a converted dataset mean.',
        epilog='example:\n  groot-ros modality-config --embodiment ur5e_robotiq_zed --gr00t-version n1.7 --output ur5e_config.py\n'
        '  python gr00t/experiment/launch_finetune.py --modality-config-path ur5e_config.py --embodiment-tag NEW_EMBODIMENT ...',
        formatter_class=_Help,
    )
    command.add_argument(
        '--embodiment',
        default=DEFAULT_EMBODIMENT,
        help=f'a name, or the path of a YAML file (default {DEFAULT_EMBODIMENT})',
    )
    command.add_argument('--gr00t-version', default='n1.7', help='n1.5, n1.6 or n1.7 (default n1.7)')
    command.add_argument('--horizon', type=int, default=16, help='steps of an action chunk (default 16)')
    command.add_argument(
        '--relative',
        action='store_true',
        help='predict poses relative to the state instead of deltas; the embodiment needs eef_9d',
    )
    command.add_argument(
        '--output', type=Path, metavar='FILE', help='the file to write; without it the text is printed'
    )
    command.set_defaults(run=_modality_config)


def _add_inspect(commands) -> None:
    command = commands.add_parser(
        'inspect',
        help='judge an episode, or read a checkpoint',
        description="For a bag: says whether it is fit to train on, and why, as the recorder's own verdict does; exit code 0 for pass and warn, "
        '1 for fail. For a checkpoint of GR00T or LeRobot: its keys, sizes, steps and representations beside the embodiment; exit code 1 where '
        'they differ.',
        epilog='examples:\n  groot-ros inspect episodes/episode_000003\n'
        '  groot-ros inspect some_bag --embodiment ur5e_ros2_drivers --report some_bag.html\n  groot-ros inspect outputs/checkpoint-10000',
        formatter_class=_Help,
    )
    command.add_argument('path', type=Path, help='folder of the bag or of the checkpoint')
    command.add_argument(
        '--embodiment',
        default='',
        help='a name, or the path of a YAML file (default: what the bag was recorded with)',
    )
    command.add_argument(
        '--thresholds',
        default='',
        metavar='FILE',
        help='YAML with bounds other than those of quality_thresholds.yaml (bags)',
    )
    command.add_argument(
        '--tag',
        default='new_embodiment',
        help='embodiment tag (checkpoints of GR00T; default new_embodiment)',
    )
    command.add_argument('--json', type=Path, metavar='FILE', help='write what was found to a file')
    command.add_argument(
        '--report', type=Path, metavar='FILE', help='write a page with plots and frames (bags)'
    )
    command.set_defaults(run=_inspect)


def _add_serve(commands) -> None:
    command = commands.add_parser(
        'serve',
        help="answer for a model on GR00T's wire",
        description="Serves a checkpoint as NVIDIA's inference server does (ZMQ, msgpack), in the Python that has the model's libraries: loads it, "
        'warms it up, answers, and starts it again when it dies. A dataset is served as its recorded actions and `hold` as no motion, for trying '
        f'a set-up from end to end. The environment variable {TOKEN_VARIABLE} sets a token that requests must carry.',
        epilog='examples:\n  groot-ros serve outputs/checkpoint-10000 --python /opt/gr00t/.venv/bin/python --host 0.0.0.0\n'
        '  groot-ros serve outputs/train/act_cube --python ~/lerobot/.venv/bin/python\n  groot-ros serve datasets/cube --episode 3\n'
        '  ros2 run groot_ros policy_server --ros-args -p backend:=remote -p host:=gpu-machine',
        formatter_class=_Help,
    )
    command.add_argument(
        'source',
        metavar='SOURCE',
        help='folder of a checkpoint (GR00T, LeRobot) or of a dataset, or the word hold',
    )
    command.add_argument(
        '--embodiment',
        default=DEFAULT_EMBODIMENT,
        help=f'a name, or the path of a YAML file (default {DEFAULT_EMBODIMENT})',
    )
    command.add_argument(
        '--episode', type=int, default=0, help='episode of the dataset, counted from 0 (default 0)'
    )
    command.add_argument(
        '--host', default='127.0.0.1', help='address to listen on (default 127.0.0.1: this machine only)'
    )
    command.add_argument('--port', type=int, default=5555, help='port (default 5555; 0 for any free one)')
    command.add_argument(
        '--gr00t-version',
        default='n1.7',
        help='n1.5, n1.6 or n1.7: whose form the answers have (default n1.7)',
    )
    _add_model_options(command)
    command.set_defaults(run=_serve)


def _add_evaluate(commands) -> None:
    command = commands.add_parser(
        'evaluate',
        help='compare policies with recorded actions, without a robot',
        description='Lets policies see rows of a dataset or of a bag, and compares the chunks that they give with the actions that were recorded: '
        'MSE and MAE of each action, over the steps of a chunk.',
        epilog='examples:\n  groot-ros evaluate datasets/cube --policy gpu-machine:5555 --episodes 0 1 2\n'
        '  groot-ros evaluate datasets/cube --policy outputs/checkpoint-5000 outputs/checkpoint-10000 --python /opt/gr00t/.venv/bin/python \\\n'
        '    --plot errors.png',
        formatter_class=_Help,
    )
    command.add_argument(
        'source', type=Path, metavar='DATASET_OR_BAG', help='folder of the dataset, or of a bag'
    )
    where = 'HOST:PORT of a model server, or the folder of a checkpoint; several are compared (default 127.0.0.1:5555)'
    command.add_argument('--policy', nargs='+', default=['127.0.0.1:5555'], metavar='WHERE', help=where)
    command.add_argument(
        '--embodiment',
        default=DEFAULT_EMBODIMENT,
        help=f'a name, or the path of a YAML file (default {DEFAULT_EMBODIMENT})',
    )
    command.add_argument(
        '--gr00t-version',
        default='n1.7',
        help='n1.5, n1.6 or n1.7: whose wire the servers speak (default n1.7)',
    )
    command.add_argument(
        '--timeout', type=float, default=15.0, metavar='S', help='longest time for an answer (default 15 s)'
    )
    command.add_argument(
        '--episodes', type=int, nargs='+', default=[0], help='episodes, counted from 0 (default 0)'
    )
    command.add_argument('--stride', type=int, default=8, help='rows between two requests (default 8)')
    command.add_argument('--json', type=Path, metavar='FILE', help='write the errors, by step too, to a file')
    command.add_argument(
        '--plot',
        type=Path,
        metavar='FILE',
        help='write a plot of the errors over the steps (.png, .pdf, .svg)',
    )
    _add_model_options(command)
    command.set_defaults(run=_evaluate)


def _add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--python',
        default='',
        metavar='PATH',
        help="the Python that has the model's libraries (default: this one)",
    )
    command.add_argument(
        '--device',
        default='',
        help='where the model runs, such as cuda:0 (default: the GPU where there is one)',
    )
    command.add_argument(
        '--tag',
        default='new_embodiment',
        help='embodiment tag (checkpoints of GR00T; default new_embodiment)',
    )
    command.add_argument(
        '--data-config', default='', metavar='MODULE:CLASS', help='data config (checkpoints of GR00T N1.5)'
    )


def _add_recover(commands) -> None:
    command = commands.add_parser(
        'recover',
        help='rebuild a bag whose recorder was killed',
        description='Saves every whole chunk of a torn bag. The torn folder stays beside it as NAME.torn.',
    )
    command.add_argument('bag', type=Path, help='folder of the torn bag')
    command.set_defaults(run=_recover)


def _add_demo(commands) -> None:
    command = commands.add_parser(
        'demo',
        help='the whole loop in the simulated cell',
        description='Records three scripted episodes in the simulated cell, converts and validates them, replays one, and writes '
        'figures.json and report.html. Exit code 1 when a figure is worse than its bound.',
    )
    command.add_argument(
        '--output', type=Path, default=Path('demo_output'), help='folder for everything (default demo_output)'
    )
    command.add_argument('--episodes', type=int, default=3, help='how many episodes to record (default 3)')
    command.add_argument(
        '--host', default='127.0.0.1', help='loopback address of the cell (default 127.0.0.1)'
    )
    command.set_defaults(run=_demo)


def _need_ros(command: str) -> None:
    """Raises GrootRosError where only the ROS-free part is installed."""
    if importlib.util.find_spec('rclpy') is None or importlib.util.find_spec('groot_ros.nodes') is None:
        raise GrootRosError(
            f'groot-ros {command} needs ROS 2, which this Python lacks: use `make setup` in a checkout, or colcon and a sourced ROS.'
        )


def _need_report(what: str) -> None:
    """Raises GrootRosError where the libraries for pages are lacking."""
    if lacking := [
        name for name in ('jinja2', 'matplotlib', 'PIL') if importlib.util.find_spec(name) is None
    ]:
        raise GrootRosError(f'{what} needs {", ".join(lacking)}: pip install "groot_ros[report]".')


def _up(options: argparse.Namespace) -> int:
    _need_ros('up')
    from groot_ros.bringup.supervisor import up

    return up(
        options.profile, Options(**{option.name: getattr(options, option.name) for option in fields(Options)})
    )


def _convert(options: argparse.Namespace) -> int:
    from groot_ros.dataset.convert import convert
    from groot_ros.dataset.convert_source import ConversionResult

    embodiment, chosen = conversion_from_args(options)

    def bar(parts: Iterable[ConversionResult], count: int) -> Iterator[ConversionResult]:
        rows, began_s = 0, time.monotonic()
        with tqdm(parts, desc='convert', total=count, unit='episode', disable=None) as shown:
            for part in shown:
                rows += part.rows
                shown.set_postfix_str(f'{rows / max(time.monotonic() - began_s, 1e-9):.0f} rows/s')
                yield part

    try:
        report = convert(options.sources, options.output, embodiment, chosen, bar)
    except KeyboardInterrupt:
        print('stopped: the same command goes on from here.', file=sys.stderr)
        return 130
    for line in report.lines():
        print(line)
    if options.json:
        options.json.write_text(json.dumps({**vars(report), 'output': str(report.output)}, indent=2) + '\n')
    if not options.report:
        return 0
    return _write_report(options.output, options.horizon, chosen.gr00t_version, options.report)


def _write_report(dataset: Path, horizon: int, gr00t_version: str, file: Path) -> int:
    _need_report('--report')
    from groot_ros.dataset.report import write_report
    from groot_ros.dataset.validation.validate import validate

    report = validate(dataset, horizon, gr00t_version or 'n1.7')
    write_report(dataset, report, file)
    print(f'{report.errors} errors, {report.warnings} warnings: see {file}')
    return 1 if report.errors else 0


def _validate(options: argparse.Namespace) -> int:
    from groot_ros.dataset.validation.validate import validate

    report = validate(options.dataset, options.horizon, options.gr00t_version)
    if options.report:
        _need_report('groot-ros validate --report')
        from groot_ros.dataset.report import write_report

        write_report(options.dataset, report, options.report)
    for finding, more in report.grouped():
        print(finding, f'(and {more} more like it)' if more else '')
    print(
        f'{options.dataset}: {report.errors} errors, {report.warnings} warnings in {report.episodes} episodes, {report.rows} rows'
    )
    if options.json:
        options.json.write_text(json.dumps(report.as_dict(), indent=2) + '\n')
    return 1 if report.errors else 0


def _modality_config(options: argparse.Namespace) -> int:
    from groot_ros.dataset.modality_config import modality_config
    from groot_ros.embodiment import load_embodiment

    text = modality_config(
        load_embodiment(options.embodiment), options.gr00t_version, options.horizon, options.relative
    )
    if options.output:
        options.output.write_text(text)
        print(f'written to {options.output}')
    else:
        print(text, end='')
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from groot_ros.policies.checkpoint import is_checkpoint

    if is_checkpoint(options.path):
        from groot_ros.cli.model_commands import run_inspect

        return run_inspect(options)
    return _inspect_bag(options)


def _inspect_bag(options: argparse.Namespace) -> int:
    from groot_ros.bags.reader import EpisodeBag
    from groot_ros.quality.trace_from_bag import load_bag_embodiment, load_trace
    from groot_ros.quality.verdict import judge, load_thresholds

    thresholds = load_thresholds(options.thresholds)
    with EpisodeBag(options.path) as bag:
        trace = load_trace(bag, load_bag_embodiment(bag, options.embodiment))
        verdict = judge(
            trace, thresholds, bag.info, options.path.resolve().name, str(bag.info.get('failure', ''))
        )
        if options.report:
            _need_report('groot-ros inspect --report')
            from groot_ros.quality.report import write_report

            write_report(bag, trace, verdict, options.report)
    for reason in verdict.reasons:
        print(f'  {reason}')
    print(
        f'{verdict.episode}: {verdict.verdict}, {verdict.rows} rows, {verdict.filled} filled, {verdict.lost} messages lost'
    )
    if options.json:
        options.json.write_text(json.dumps(verdict.as_dict(), indent=1) + '\n')
    return 1 if verdict.verdict == 'fail' else 0


def _need_wire(command: str) -> None:
    """Raises GrootRosError where the libraries of the wire are lacking."""
    if lacking := [name for name in ('zmq', 'msgpack') if importlib.util.find_spec(name) is None]:
        raise GrootRosError(
            f'groot-ros {command} needs {", ".join(lacking)}: pip install "groot_ros[policy]".'
        )


def _serve(options: argparse.Namespace) -> int:
    _need_wire('serve')
    from groot_ros.cli.model_commands import run_serve

    return run_serve(options)


def _evaluate(options: argparse.Namespace) -> int:
    _need_wire('evaluate')
    if options.plot:
        _need_report('groot-ros evaluate --plot')
    from groot_ros.cli.model_commands import run_evaluate

    return run_evaluate(options)


def _recover(options: argparse.Namespace) -> int:
    from groot_ros.bags.recover import recover_bag

    if not options.bag.is_dir():
        raise GrootRosError(f'{options.bag} is not a folder: give the folder of the torn bag.')
    recovered = recover_bag(options.bag)
    print(f'{recovered.messages} messages saved in {recovered.path}')
    return 0


def _demo(options: argparse.Namespace) -> int:
    _need_ros('demo')
    from groot_ros.sim.nodes.demo import run_demo

    return run_demo(options.output, options.episodes, options.host)


if __name__ == '__main__':
    sys.exit(main())
