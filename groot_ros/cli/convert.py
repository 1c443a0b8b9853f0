# SPDX-License-Identifier: Apache-2.0
"""`groot-ros convert`: makes a LeRobot dataset for GR00T from recordings."""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from groot_ros.argument_types import output_file
from groot_ros.cli.options import ParagraphHelp
from groot_ros.cli.output import add_output_options, say, write_json
from groot_ros.cli.requirements import require_report_libraries
from groot_ros.cli.validate import validate_and_tell
from groot_ros.dataset.options import add_conversion_options, conversion_from_args

if TYPE_CHECKING:
    from groot_ros.dataset.convert_recording import ConversionResult

_INTERRUPTED = 130
_DESCRIPTION = (
    'Converts recordings to a LeRobot v2.1 dataset that GR00T N1.5, N1.6 and N1.7 read. Video packets of '
    'our recorder are copied, not decoded. Bags of other recorders are resampled by the same rules, and '
    'their video is encoded. HDF5 files (Isaac Lab, Mimic) and LeRobot datasets (v2.0, v2.1, v3.0) are read '
    'as the embodiment file says; groot-ros embodiment draft makes one for a LeRobot dataset. The dataset '
    'appears at --output only when it is complete.'
)
_EXAMPLES = """examples:
  groot-ros convert episodes --output datasets/cube_in_bin --workers 2
  groot-ros convert teleop.hdf5 --output datasets/card --embodiment franka_mcx --task "insert the card"
  groot-ros convert hub:lerobot/svla_so101_pickplace --output datasets/so101 --embodiment so101.yaml
  groot-ros convert episodes --output datasets/cube_in_bin --append"""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'convert',
        help='make a GR00T dataset from bags, HDF5 files or LeRobot datasets',
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    command.add_argument(
        'sources',
        nargs='+',
        metavar='SOURCE',
        help='bags, HDF5 files, LeRobot datasets, folders with them, s3://... with bags, or hub:OWNER/NAME',
    )
    command.add_argument('--output', required=True, type=Path, help='folder of the dataset')
    add_conversion_options(command)
    add_output_options(command, 'a summary of the conversion')
    command.add_argument(
        '--report',
        type=output_file('.html'),
        metavar='FILE',
        help='validate the dataset afterwards and write an HTML report (as groot-ros validate --report)',
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Converts the sources. Returns 1 if --report is given and the validation found an error."""
    from groot_ros.dataset.convert import convert

    if options.report:
        require_report_libraries('groot-ros convert --report')
    embodiment, settings = conversion_from_args(options)
    try:
        progress = partial(progress_bar, quiet=options.quiet)
        report = convert(options.sources, options.output, embodiment, settings, progress)
    except KeyboardInterrupt:
        print('Interrupted. Run the same command again to continue the conversion.', file=sys.stderr)
        return _INTERRUPTED
    say(options, *report.summary_lines())
    write_json(options, {**vars(report), 'output': str(report.output)})
    if not options.report:
        return 0
    found = validate_and_tell(options, options.output, options.gr00t_version or 'n1.7')
    return 1 if found.errors else 0


def progress_bar(
    results: 'Iterable[ConversionResult]', count: int, quiet: bool, what: str = 'convert'
) -> 'Iterator[ConversionResult]':
    """Passes the results on and shows how many are done, with the rate in rows/s."""
    from tqdm import tqdm

    rows = 0
    started_s = time.monotonic()
    with tqdm(results, desc=what, total=count, unit='episode', disable=quiet or None) as bar:
        for result in bar:
            rows += result.rows
            elapsed_s = max(time.monotonic() - started_s, 1e-9)
            bar.set_postfix_str(f'{rows / elapsed_s:.0f} rows/s')
            yield result
