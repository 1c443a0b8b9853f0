# SPDX-License-Identifier: Apache-2.0
"""Entry of `groot-ros`: builds the parser from the command modules, and reports errors in one sentence."""

import argparse
import os
import sys
import traceback
from pathlib import Path

from groot_ros import __version__
from groot_ros.cli import (
    call,
    completion,
    convert,
    demo,
    demonstrate,
    doctor,
    embodiment,
    evaluate,
    finetune,
    inspect,
    modality_config,
    recover,
    serve,
    status,
    up,
    validate,
)
from groot_ros.cli.output import print_error
from groot_ros.cli.parsing import Parser
from groot_ros.cli.requirements import explain_missing
from groot_ros.errors import GrootRosError, explain_error

COMMANDS = (
    up,
    call,
    status,
    convert,
    validate,
    modality_config,
    finetune,
    inspect,
    embodiment,
    serve,
    evaluate,
    recover,
    demo,
    demonstrate,
    doctor,
    completion,
)
_INTERRUPTED = 130
# Shows the whole traceback of an error, for whoever mends it.
_DEBUG_VARIABLE = 'GROOT_ROS_DEBUG'
_FORESEEN = (GrootRosError, ModuleNotFoundError, OSError)


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand and returns its exit code: 0 if all is well, 1 for an error, 2 for wrong usage."""
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        options.parser.unknown(unknown)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        return _stop_printing()
    except Exception as error:
        if os.environ.get(_DEBUG_VARIABLE) and not isinstance(error, _FORESEEN):
            raise
        print_error(explain(error, f'groot-ros {options.command}'))
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line with all subcommands."""
    top = Parser(
        prog='groot-ros',
        description='Record demonstrations on a UR5e, convert them to GR00T datasets, '
        'and run policies on the robot.',
        epilog='Every command has its own help: groot-ros COMMAND --help',
    )
    top.add_argument('--version', action='version', version=f'groot-ros {__version__}')
    commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for command in COMMANDS:
        command.add_parser(commands)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return top


def explain(error: Exception, what: str) -> str:
    """One sentence about an error that ended the command `what`."""
    if isinstance(error, GrootRosError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return explain_missing(what, error.name or str(error))
    if isinstance(error, OSError):
        return explain_error(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f'{what} met an error that it does not know ({type(error).__name__}: {error}, in '
        f'{Path(place.filename).name}:{place.lineno}). Please report it, with what {_DEBUG_VARIABLE}=1 shows.'
    )


def _stop_printing() -> int:
    """After `| head` ended: nothing more can be printed, not even by Python at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == '__main__':
    sys.exit(main())
