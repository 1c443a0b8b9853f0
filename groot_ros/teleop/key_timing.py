# SPDX-License-Identifier: Apache-2.0
"""Which keys of a terminal count as held. A terminal reports presses and repeats, but no releases.

A desktop repeats a key first after 0.5 s, and then about every 33 ms. It repeats the newest key only.
"""

from collections.abc import Mapping

FIRST_HOLD_S = 0.55  # after a press, until its first repeat could have come
REPEAT_HOLD_S = 0.12  # after a repeat
TAP_SHARE = 0.3  # deflection before the first repeat: a tap is a small step


class _Hold:
    """The times of one key, or of the keys that move together."""

    def __init__(self, now_s: float) -> None:
        self._last_s = now_s
        self.repeats = False

    def repeat(self, now_s: float) -> None:
        self._last_s = now_s
        self.repeats = True

    def lasts(self, now_s: float) -> bool:
        return now_s - self._last_s < (REPEAT_HOLD_S if self.repeats else FIRST_HOLD_S)


class KeyTiming:
    """Turns presses into held keys. `directions` has the direction of each key that moves the arm.

    Keys of different directions that follow each other without a pause make a diagonal: they end together,
    with the newest. A key of the same direction replaces the older one. Any other key ends the motion.
    """

    def __init__(self, directions: Mapping[str, str]) -> None:
        self._directions = directions
        self._moving: list[str] = []
        self._motion: _Hold | None = None
        self._others: dict[str, _Hold] = {}

    def press(self, key: str, now_s: float) -> None:
        """Takes over one press or repeat."""
        if key in self._directions:
            self._press_motion(key, now_s)
            return
        self._motion = None
        hold = self._others.get(key)
        if hold is not None and hold.lasts(now_s):
            hold.repeat(now_s)
        else:
            self._others[key] = _Hold(now_s)

    def axes(self, now_s: float) -> dict[str, float]:
        """The deflection of each key that moves the arm: 0.3 before the first repeat, then 1."""
        if self._motion is None or not self._motion.lasts(now_s):
            return {}
        return dict.fromkeys(self._moving, 1.0 if self._motion.repeats else TAP_SHARE)

    def down(self, now_s: float) -> frozenset[str]:
        """All keys that count as held."""
        others = [key for key, hold in self._others.items() if hold.lasts(now_s)]
        return frozenset([*others, *self.axes(now_s)])

    def _press_motion(self, key: str, now_s: float) -> None:
        moving = list(self.axes(now_s))
        if self._motion is not None and moving and moving[-1] == key:
            self._motion.repeat(now_s)
            return
        direction = self._directions[key]
        kept = [other for other in moving if self._directions[other] != direction]
        self._moving = [*kept, key]
        self._motion = _Hold(now_s)
