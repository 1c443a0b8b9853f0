# SPDX-License-Identifier: Apache-2.0
"""`groot-ros completion`: a script that lets the shell complete commands and options."""

import argparse
from collections.abc import Iterator

_DESCRIPTION = (
    'Prints a script for the shell. bash: add `eval "$(groot-ros completion bash)"` to ~/.bashrc. '
    'zsh: add `eval "$(groot-ros completion zsh)"` to ~/.zshrc, after compinit.'
)
_SCRIPT = """_groot_ros() {
  local words='%(commands)s'
  if [ "$COMP_CWORD" -gt 1 ]; then
    case "${COMP_WORDS[1]}" in
%(options)s
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _groot_ros groot-ros
"""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'completion', help='print a script that completes commands in the shell', description=_DESCRIPTION
    )
    command.add_argument('shell', choices=['bash', 'zsh'], help='your shell')
    command.set_defaults(run=run, commands=commands)


def run(options: argparse.Namespace) -> int:
    """Prints the completion script of the chosen shell, and returns 0."""
    if options.shell == 'zsh':
        print('autoload -U +X bashcompinit && bashcompinit')
    print(completion_script(options.commands.choices), end='')
    return 0


def completion_script(commands: dict[str, argparse.ArgumentParser]) -> str:
    """The script of bash: the commands, and the options and first words of each."""
    cases = [f"      {name}) words='{' '.join(_words(command))}' ;;" for name, command in commands.items()]
    return _SCRIPT % {'commands': ' '.join(commands), 'options': '\n'.join(cases)}


def _words(command: argparse.ArgumentParser) -> Iterator[str]:
    for action in command._actions:
        yield from action.option_strings or map(str, action.choices or ())
