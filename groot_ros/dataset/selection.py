# SPDX-License-Identifier: Apache-2.0
"""Which recordings go into a dataset: by the verdict of the recorder, and by the outcome of the episode."""

from groot_ros.dataset.sources.recording import Recording
from groot_ros.dataset.sources.storage import local_copy, read_sidecar
from groot_ros.errors import GrootRosError
from groot_ros.quality.saved_verdict import SavedVerdict, judge_again, parse_verdict
from groot_ros.resources import VERDICT_FILE


def find_verdict(recording: Recording) -> tuple[SavedVerdict | None, str]:
    """The verdict of a recording, None if nobody judged it, and a sentence if it had to be judged again.

    An unreadable verdict.json may be that of a failed episode, so it never counts as none: the bag is
    judged again, and fails where that is not possible.
    """
    if recording.format != 'bag':
        return None, ''
    try:
        text = read_sidecar(recording, VERDICT_FILE)
        return (None if text is None else parse_verdict(text)), ''
    except (GrootRosError, OSError, UnicodeDecodeError) as error:
        verdict = _judged_again(recording, str(error))
        return verdict, (
            f'{recording}: {VERDICT_FILE} cannot be read, so the bag was judged again: {verdict.verdict}'
        )


def _judged_again(recording: Recording, reason: str) -> SavedVerdict:
    try:
        with local_copy(recording) as path:
            return judge_again(path)
    except GrootRosError as error:
        return SavedVerdict(
            verdict='fail', failure=f'{reason.rstrip(".")}, and cannot be made again: {error}'
        )
