# SPDX-License-Identifier: Apache-2.0
"""What a conversion takes and how, and its command-line options: for `groot-ros convert` and the node."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from groot_ros.argument_types import positive_number, whole_number
from groot_ros.errors import GrootRosError, choose
from groot_ros.resources import DEFAULT_EMBODIMENT

if TYPE_CHECKING:
    from groot_ros.dataset.sources.time_ranges import RangeEntry
    from groot_ros.embodiment import Embodiment


class OutputMode(StrEnum):
    """What to do if there is a dataset at the output already."""

    REFUSE = 'refuse'
    APPEND = 'append'
    OVERWRITE = 'overwrite'


# Of an episode: what the operator said at its end, or that it had no end; unknown for bags without one, and
# excluded for one that a person left out later.
OUTCOMES = ('success', 'failure', 'interrupted', 'unknown', 'excluded')


@dataclass(frozen=True)
class ConversionOptions:
    """What to take, and how.

    `horizon` is the minimum length of an episode in rows; `skip_bad` leaves out what cannot be converted;
    `keep_failed` takes bags whose verdict is fail; `outcomes` are those of OUTCOMES to take; `task` is for
    recordings that name none; `idle_s` is how much of idle beginnings and ends is kept, None for all;
    `gr00t_version` is the GR00T version whose extra statistics are written. The dataset does not depend on
    `workers`.
    """

    horizon: int = 16
    skip_bad: bool = False
    keep_failed: bool = False
    outcomes: tuple[str, ...] = ('success',)
    task: str = ''
    workers: int = 1
    executor: str = 'processes'
    format: str = 'v2.1'
    codec: str = 'h264'
    idle_s: float | None = None
    gr00t_version: str = ''
    existing: OutputMode = OutputMode.REFUSE
    ranges: 'tuple[RangeEntry, ...]' = ()


_SAME_NAME = (
    'horizon', 'skip_bad', 'keep_failed', 'task', 'workers', 'executor', 'format', 'codec', 'gr00t_version',
)  # fmt: skip


def add_conversion_options(command: ArgumentParser) -> None:
    """Adds the options that say what is converted and how."""
    _add_row_options(command)
    _add_choice_options(command)
    _add_output_options(command)


def conversion_from_args(options: Namespace) -> 'tuple[Embodiment, ConversionOptions]':
    """Returns the embodiment and the settings. Raises GrootRosError for options that exclude each other."""
    # Imported here, so that `groot-ros --help` does not wait for the libraries that read bags.
    from groot_ros.dataset.sources.time_ranges import load_ranges
    from groot_ros.embodiment import load_embodiment

    existing = _output_mode(options)
    embodiment = load_embodiment(options.embodiment)
    if options.fps and options.fps != embodiment.fps:
        embodiment = embodiment.at_fps(options.fps)
    ranges = tuple(load_ranges(options.ranges)) if options.ranges else ()
    same = {name: getattr(options, name) for name in _SAME_NAME}
    return embodiment, ConversionOptions(
        **same,
        outcomes=parse_outcomes(options.outcomes),
        idle_s=options.keep_idle_s,
        existing=existing,
        ranges=ranges,
    )


def parse_outcomes(text: str) -> tuple[str, ...]:
    """Outcomes with commas between them. Raises GrootRosError for one that is not in OUTCOMES."""
    return tuple(choose('outcome', name.strip(), OUTCOMES) for name in text.split(','))


def _output_mode(options: Namespace) -> OutputMode:
    if options.append and options.overwrite:
        raise GrootRosError('--append and --overwrite exclude each other: give one of them.')
    if options.append:
        return OutputMode.APPEND
    return OutputMode.OVERWRITE if options.overwrite else OutputMode.REFUSE


def _add_row_options(command: ArgumentParser) -> None:
    command.add_argument(
        '--embodiment',
        default=DEFAULT_EMBODIMENT,
        help=f'a name, or the path of a YAML file (default {DEFAULT_EMBODIMENT})',
    )
    command.add_argument(
        '--fps',
        type=positive_number,
        default=0.0,
        help="rows a second, if not the embodiment's; at another rate than recorded, video is encoded again",
    )
    command.add_argument(
        '--task',
        default='',
        help='language description for sources that have none, such as bags of other recorders',
    )
    command.add_argument(
        '--horizon',
        type=whole_number(1),
        default=16,
        help='minimum length of an episode in rows: the action horizon (default 16)',
    )


def _add_choice_options(command: ArgumentParser) -> None:
    command.add_argument(
        '--keep-idle-s',
        type=float,
        metavar='S',
        help='keep at most S seconds of idle rows (nothing moves) at both ends of an episode',
    )
    command.add_argument(
        '--ranges',
        type=Path,
        metavar='FILE',
        help='YAML with time ranges, each an episode, of bags that hold several',
    )
    command.add_argument(
        '--keep-failed',
        action='store_true',
        help='take episodes whose verdict is fail (see groot-ros inspect)',
    )
    command.add_argument(
        '--outcomes',
        default='success',
        metavar='NAMES',
        help=f'which episodes to take, of {", ".join(OUTCOMES)}, with commas between them (default success)',
    )
    command.add_argument(
        '--skip-bad', action='store_true', help='leave out what cannot be converted, and report which'
    )


def _add_output_options(command: ArgumentParser) -> None:
    command.add_argument(
        '--format',
        default='v2.1',
        help="v2.1, which GR00T reads, or v3.0 for LeRobot's own training (default v2.1)",
    )
    command.add_argument(
        '--codec',
        default='h264',
        help='h264, hevc or av1; other than h264, video is always encoded again (default h264)',
    )
    command.add_argument(
        '--gr00t-version',
        default='',
        help='n1.6 or n1.7: also write the statistics that only this GR00T version reads; N1.5 fails on them',
    )
    command.add_argument(
        '--append',
        action='store_true',
        help='extend the dataset at --output; episodes that it already has are not converted again',
    )
    command.add_argument(
        '--overwrite',
        action='store_true',
        help='replace the dataset at --output, once the new one is complete',
    )
    command.add_argument(
        '--workers',
        type=whole_number(1),
        default=1,
        help='episodes to convert at the same time (default 1); the dataset does not depend on it',
    )
    command.add_argument(
        '--executor',
        default='processes',
        help='processes of this machine, or ray: tasks on the cluster of RAY_ADDRESS, else of this machine',
    )
