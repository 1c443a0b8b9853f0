# SPDX-License-Identifier: Apache-2.0
"""OperatorFeedback for an operator whose eyes are on the arm."""

import shutil
import subprocess
import sys

from groot_ros.errors import GrootRosError

FEEDBACK_KINDS = ('none', 'bell', 'speech')
_SPEAKERS = ('spd-say', 'espeak-ng', 'espeak')


class OperatorFeedback:
    """Rings the terminal's bell, or speaks. Raises GrootRosError where no program for speech is installed."""

    def __init__(self, kind: str) -> None:
        if kind not in FEEDBACK_KINDS:
            raise GrootRosError(f'The cues {kind!r} are not known: use one of {", ".join(FEEDBACK_KINDS)}.')
        self._bell = kind == 'bell'
        self._speaker = next(filter(None, map(shutil.which, _SPEAKERS)), None) if kind == 'speech' else None
        if kind == 'speech' and self._speaker is None:
            raise GrootRosError(
                'Nothing here can speak: install speech-dispatcher or espeak-ng, or set cues to bell.'
            )

    def give(self, text: str) -> None:
        """Tells the operator; never waits for the end of a sentence."""
        if self._bell:
            print('\a', end='', file=sys.stderr, flush=True)
        if self._speaker:
            subprocess.Popen([self._speaker, text], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
