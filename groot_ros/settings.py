# SPDX-License-Identifier: Apache-2.0
"""Fields of settings dataclasses: default, description and range, for ROS parameters and --help texts."""

from dataclasses import field
from typing import Any

import numpy as np


def setting(
    default: Any, description: str, minimum: float | None = None, maximum: float | None = None
) -> Any:
    """A dataclass field that `ros.parameters.specs_from` turns into a ROS parameter.

    `minimum` and `maximum` are inclusive and are given together or not at all. A list or an array as default
    is copied for each instance.
    """
    metadata = {'description': description, 'minimum': minimum, 'maximum': maximum}
    if isinstance(default, list | np.ndarray):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)
