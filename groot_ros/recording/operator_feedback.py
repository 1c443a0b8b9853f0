# SPDX-License-Identifier: Apache-2.0
"""Reports by bell or speech what the recorder does: an operator watches the arm, not a screen."""

import shutil
import subprocess
import sys

from groot_ros.errors import GrootRosError, choose

FEEDBACK_KINDS = ('none', 'bell', 'speech')
_SPEECH_PROGRAMS = ('spd-say', 'espeak-ng', 'espeak')


class OperatorFeedback:
    """Rings the terminal's bell or speaks. Raises GrootRosError if no speech program is installed."""

    def __init__(self, kind: str) -> None:
        choose('operator_feedback', kind, FEEDBACK_KINDS)
        self._bell = kind == 'bell'
        self._speech_program: str | None = None
        if kind == 'speech':
            self._speech_program = _find_speech_program()

    def give(self, text: str) -> None:
        """Rings the bell or says `text`, without waiting for the end of the sentence."""
        if self._bell:
            print('\a', end='', file=sys.stderr, flush=True)
        if self._speech_program:
            command = [self._speech_program, text]
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _find_speech_program() -> str:
    for program in _SPEECH_PROGRAMS:
        if path := shutil.which(program):
            return path
    raise GrootRosError(
        'No speech program is installed: install speech-dispatcher or espeak-ng, '
        'or set operator_feedback to bell.'
    )
