# SPDX-License-Identifier: Apache-2.0
"""What both connections to a Robotiq 2F gripper share: its registers and the interface of a connection."""

from dataclasses import dataclass
from typing import Protocol

ACTIVE = 3  # the value of `activation` in a gripper that is ready to move


@dataclass
class GripperRegisters:
    """The registers of the gripper. Positions are in counts, 0 open to 255 closed.

    `current_a` is in A, NaN if the connection does not report it. Raises OSError for numbers beyond 0 to 255.
    """

    position: int
    requested: int
    object_status: int
    fault: int
    activation: int
    current_a: float

    def __post_init__(self) -> None:
        names = ('position', 'requested', 'object_status', 'fault', 'activation')
        if wrong := [
            f'{name} {getattr(self, name)}' for name in names if not 0 <= getattr(self, name) <= 255
        ]:
            raise OSError(f'the gripper reports {", ".join(wrong)}, and registers are 0 to 255')


class GripperConnection(Protocol):
    """The interface of a connection, used by gripper.py. Every call raises OSError if the gripper is lost."""

    def read(self) -> GripperRegisters:
        """Returns the present values of all registers that are listed above."""

    def go_to(self, count: int, speed: int, force: int) -> None:
        """Moves toward a position; all three are 0 to 255. Does not wait."""

    def activate(self) -> None:
        """Activates, which moves the fingers through their travel. Raises GrootRosError after 8 s."""

    def close(self) -> None:
        """Closes the connection; the gripper keeps its last target."""
