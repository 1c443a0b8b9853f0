# SPDX-License-Identifier: Apache-2.0
"""Entry of `groot-ros`: builds the parser from the command modules, and reports errors in one sentence."""

import argparse
import errno
import os
import sys
import traceback
from pathlib import Path

from groot_ros import __version__
from groot_ros.cli import (
    completion,
    convert,
    demo,
    doctor,
    embodiment,
    evaluate,
    finetune,
    inspect,
    modality_config,
    recover,
    serve,
    up,
    validate,
)
from groot_ros.cli.output import print_error
from groot_ros.cli.parsing import Parser
from groot_ros.cli.requirements import explain_missing
from groot_ros.errors import GrootRosError

COMMANDS = (
    up,
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
    doctor,
    completion,
)
_INTERRUPTED = 130
# Shows the whole traceback of an error, for whoever mends it.
_DEBUG_VARIABLE = 'GROOT_ROS_DEBUG'
_FORESEEN = (GrootRosError, ModuleNotFoundError, OSError)
_OS_ERRORS = {
    errno.ENOSPC: 'the disk is full. Free some space and run the command again',
    errno.EDQUOT: 'your disk quota is used up. Free some space and run the command again',
    errno.EFBIG: 'the file is larger than this file system or your `ulimit -f` allows',
    errno.EACCES: 'permission denied. Change the permissions or choose another path',
    errno.EPERM: 'the operation is not permitted. Check the owner of the file or choose another path',
    errno.EROFS: 'the file system is read-only. Choose another path',
    errno.ENOENT: 'no such file or folder. Check the path; an output file needs a folder that exists',
    errno.ENOTDIR: 'a part of this path is a file, not a folder. Check the path',
    errno.EISDIR: 'this is a folder, and a file is needed. Check the path',
}


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
        return explain_os_error(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f'{what} met an error that it does not know ({type(error).__name__}: {error}, in '
        f'{Path(place.filename).name}:{place.lineno}). Please report it, with what {_DEBUG_VARIABLE}=1 shows.'
    )


def explain_os_error(error: OSError) -> str:
    """One sentence that names the file, if the system reported which, the reason, and what to do."""
    reason = _OS_ERRORS.get(error.errno or 0, error.strerror or str(error))
    return f'{error.filename}: {reason}.' if error.filename else f'{reason[:1].upper()}{reason[1:]}.'


def _stop_printing() -> int:
    """After `| head` ended: nothing more can be printed, not even by Python at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == '__main__':
    sys.exit(main())
