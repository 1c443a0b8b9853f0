# SPDX-License-Identifier: Apache-2.0
"""Episodes that are not trained on: they show what a checkpoint has learned, and not what it remembers."""

import hashlib

from groot_ros.dataset.meta import DatasetMeta
from groot_ros.errors import GrootRosError


def choose_held_out(meta: DatasetMeta, share: float) -> list[int]:
    """Indices of whole episodes, about a `share` (0 to 1) of all, and at least one if it is above 0.

    An episode is chosen by the hash of its recording: it stays held out when the dataset grows, and all
    episodes of one recording stay together. Raises GrootRosError if none would be left to train on.
    """
    if share <= 0.0:
        return []
    scores = {
        int(record['episode_index']): _score(meta, int(record['episode_index'])) for record in meta.episodes
    }
    if len(set(scores.values())) < 2:
        raise GrootRosError(
            f'{meta.root} has episodes of one recording only, so that none can be held out: record more, or '
            'leave --hold-out out.'
        )
    lowest = min(scores.values())
    limit = min(share, max(scores.values()))  # the recording with the highest number is always trained on
    return sorted(index for index, score in scores.items() if score < limit or score == lowest)


def _score(meta: DatasetMeta, index: int) -> float:
    """A number from 0 to 1, the same for all episodes of a recording; of the index where none is noted."""
    noted = meta.conversion.get('episodes', [])
    name = str(noted[index]['sha256']) if index < len(noted) else f'episode {index}'
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], 'big') / 2**64
