# SPDX-License-Identifier: Apache-2.0
"""What a small policy sees and answers, and the sizes of its network: the JSON file of a checkpoint."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from groot_ros.embodiment import EEF_9D, Embodiment

SPEC_FILE = 'small_policy.json'
# Width of the network's images in pixels; the height keeps the aspect ratio.
IMAGE_WIDTH = 128
# The encoder halves an image four times.
IMAGE_STEP = 16
POSE_SIZE = 9

_Size = Annotated[int, Field(ge=1, le=1024)]
_Row = Annotated[list[float], Field(max_length=1024)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class KeySpec(_Strict):
    """A key of the state or the action, and how many numbers it has."""

    name: str = Field(max_length=200)
    size: _Size


class ActionSpec(KeySpec):
    """A key of the action. A two-valued one, such as a gripper command, is answered as one of two values."""

    two_valued: bool = False


class CameraSpec(_Strict):
    """A camera, and the size in pixels of the images that the network sees."""

    name: str = Field(max_length=200)
    width: _Size
    height: _Size


class NetworkSpec(_Strict):
    """Sizes of the network. `flow_steps` is the number of Euler steps of an inference."""

    width: int = Field(default=256, ge=32, le=1024, multiple_of=32)
    layers: int = Field(default=4, ge=1, le=12)
    heads: int = Field(default=4, ge=1, le=16)
    context_layers: int = Field(default=1, ge=0, le=12)
    flow_steps: int = Field(default=8, ge=1, le=100)


class ValueRange(_Strict):
    """Smallest and largest values: of a state one row, of a chunk one row for each step."""

    low: list[_Row] = Field(max_length=1000)
    high: list[_Row] = Field(max_length=1000)


class PolicySpec(_Strict):
    """One small policy.

    `relative` says that the first action key is a pose of 9 numbers (position in m and two rows of the
    rotation), which the network gives in the frame of the first state key, the pose at the observation.
    """

    format: Literal['groot_ros small policy 1'] = 'groot_ros small policy 1'
    embodiment: str = Field(max_length=200)
    fps: float = Field(gt=0, le=1000)
    horizon: int = Field(ge=1, le=200)
    relative: bool
    language: str = Field(max_length=200)
    cameras: list[CameraSpec] = Field(min_length=1, max_length=8)
    state: list[KeySpec] = Field(min_length=1, max_length=100)
    action: list[ActionSpec] = Field(min_length=1, max_length=100)
    state_range: ValueRange = ValueRange(low=[], high=[])
    action_range: ValueRange = ValueRange(low=[], high=[])
    network: NetworkSpec = NetworkSpec()

    @property
    def state_size(self) -> int:
        """How many numbers the state has."""
        return sum(key.size for key in self.state)

    @property
    def action_size(self) -> int:
        """How many numbers a step of the chunk has."""
        return sum(key.size for key in self.action)

    def action_parts(self) -> list[tuple[ActionSpec, slice]]:
        """Each key of the action with its slice of a step."""
        parts = []
        start = 0
        for key in self.action:
            parts.append((key, slice(start, start + key.size)))
            start += key.size
        return parts


def spec_for(embodiment: Embodiment, horizon: int, has_poses: bool) -> PolicySpec:
    """The spec for an embodiment, without ranges.

    With the pose columns of a dataset the policy works on poses, else on the embodiment's own action. Joint
    velocities are no part of the state: a policy that sees how fast it moves learns to go on as before.
    """
    states = [field for field in embodiment.state if field.field != 'velocity']
    actions = list(embodiment.action)
    pose_keys = []
    if has_poses:
        pose_keys = [(EEF_9D, POSE_SIZE)]
        states = [field for field in states if field.size == 1]
        actions = [field for field in actions if not field.is_derived]
    return PolicySpec(
        embodiment=embodiment.name,
        fps=embodiment.fps,
        horizon=horizon,
        relative=has_poses,
        language=embodiment.language,
        cameras=[
            CameraSpec(name=camera.name, width=IMAGE_WIDTH, height=image_height(camera.width, camera.height))
            for camera in embodiment.cameras
        ],
        state=[
            *(KeySpec(name=name, size=size) for name, size in pose_keys),
            *(KeySpec(name=field.name, size=field.size) for field in states),
        ],
        action=[
            *(ActionSpec(name=name, size=size) for name, size in pose_keys),
            *(ActionSpec(name=field.name, size=field.size) for field in actions),
        ],
    )


def image_height(width: int, height: int) -> int:
    """The height in pixels of the network's images for a camera: its aspect ratio, in whole tokens."""
    return math.ceil(IMAGE_WIDTH * height / width / IMAGE_STEP) * IMAGE_STEP
