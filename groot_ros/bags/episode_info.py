# SPDX-License-Identifier: Apache-2.0
"""What our recorder writes of an episode as JSON, and its check when a bag is read."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from groot_ros.config_files import checked
from groot_ros.errors import GrootRosError


class _Numbers(BaseModel):
    """How many messages of a topic were recorded."""

    lost: int = Field(0, ge=0)


class _Counts(BaseModel):
    """How many messages of each topic were recorded."""

    overflows: int = Field(0, ge=0)
    regressions: int = Field(0, ge=0)
    filled: int = Field(0, ge=0)
    topics: dict[str, _Numbers] = {}


class _Info(BaseModel):
    """The entries that are read again, some at the start of an episode and some at its end."""

    model_config = ConfigDict(strict=True)

    task: str = ''
    operator: str = ''
    outcome: str = ''
    embodiment: str = ''
    namespace: str = '/'
    failure: str = ''
    notes: str = ''
    fps: float = Field(1.0, gt=0, allow_inf_nan=False)
    counts: _Counts = _Counts()


def parse_info(text: str) -> dict[str, Any]:
    """The entries of an `episode_info` message. Raises GrootRosError, which names the one that is wrong."""
    try:
        info = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GrootRosError(f'Its episode_info is not JSON ({error}).') from error
    checked(_Info, info, 'Its episode_info')
    return info
