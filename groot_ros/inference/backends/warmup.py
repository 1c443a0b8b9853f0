# SPDX-License-Identifier: Apache-2.0
"""An observation to warm a model up with: images of grey, a state of rest."""

from typing import Any

import numpy as np


def example_observation(backend: Any, rows: dict[str, Any]) -> dict[str, Any]:
    """In the form of GR00T N1.6 and N1.7, (1, steps, ...) each.

    `rows` says the sizes of the state's parts (`state_sizes`) and of images (`image_sizes`, width and height by name).
    """
    wanted = backend.modalities()
    sizes = {**rows['image_sizes'], **backend.extra_info().get('image_sizes', {})}
    video, state = wanted['video'], wanted['state']
    return {
        'video': {
            name: np.full((1, len(video.delta_indices), *_shape(sizes.get(name))), 127, np.uint8)
            for name in video.keys
        },
        'state': {
            name: np.full((1, len(state.delta_indices), rows['state_sizes'][name]), 0.1, np.float32)
            for name in state.keys
        },
        'language': {name: [['warm up']] for name in wanted['language'].keys},
    }


def _shape(size: list[int] | None) -> tuple[int, int, int]:
    width, height = size or (640, 480)
    return height, width, 3
