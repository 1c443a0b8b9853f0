# SPDX-License-Identifier: Apache-2.0
"""An observation to warm a model up with: grey images and a state that the robot could have."""

from typing import Any

import numpy as np


def example_observation(backend: Any, rows: dict[str, Any]) -> dict[str, Any]:
    """An observation in the form of GR00T N1.6 and N1.7, with arrays (1, steps, ...).

    `rows` has `example_state`, the numbers by state key, and `image_sizes` (width and height) by camera name.
    """
    wanted = backend.modalities()
    sizes = {**rows['image_sizes'], **backend.extra_info().get('image_sizes', {})}
    video = wanted['video']
    state = wanted['state']
    return {
        'video': {
            name: np.full((1, len(video.delta_indices), *_shape(sizes.get(name))), 127, np.uint8)
            for name in video.keys
        },
        'state': {
            name: np.tile(np.array(rows['example_state'][name], np.float32), (1, len(state.delta_indices), 1))
            for name in state.keys
        },
        'language': {name: [['warm up']] for name in wanted['language'].keys},
    }


def _shape(size: list[int] | None) -> tuple[int, int, int]:
    width, height = size or (640, 480)
    return height, width, 3
