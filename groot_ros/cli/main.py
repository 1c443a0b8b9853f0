# SPDX-License-Identifier: Apache-2.0
"""Entry of `groot-ros`: builds the parser from the command modules, and reports errors in one sentence."""

import argparse
import errno
import sys

from groot_ros import __version__
from groot_ros.cli import (
    convert,
    demo,
    evaluate,
    finetune,
    inspect,
    modality_config,
    recover,
    serve,
    up,
    validate,
)
from groot_ros.cli.requirements import explain_missing
from groot_ros.errors import GrootRosError

COMMANDS = (up, convert, validate, modality_config, finetune, inspect, serve, evaluate, recover, demo)
_INTERRUPTED = 130
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
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except GrootRosError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(
            f'error: {explain_missing(f"groot-ros {options.command}", error.name or str(error))}',
            file=sys.stderr,
        )
        return 1
    except OSError as error:
        print(f'error: {explain_os_error(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        return _INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The command line with all subcommands."""
    top = argparse.ArgumentParser(
        prog='groot-ros',
        description='Record demonstrations on a UR5e, convert them to GR00T datasets, '
        'and run policies on the robot.',
        epilog='Every command has its own help: groot-ros COMMAND --help',
    )
    top.add_argument('--version', action='version', version=__version__)
    commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for command in COMMANDS:
        command.add_parser(commands)
    return top


def explain_os_error(error: OSError) -> str:
    """One sentence that names the file, if the system reported which, the reason, and what to do."""
    reason = _OS_ERRORS.get(error.errno or 0, error.strerror or str(error))
    return f'{error.filename}: {reason}.' if error.filename else f'{reason[:1].upper()}{reason[1:]}.'


if __name__ == '__main__':
    sys.exit(main())
