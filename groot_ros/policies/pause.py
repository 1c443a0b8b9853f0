# SPDX-License-Identifier: Apache-2.0
"""Decides why a running policy pauses, and whether it continues by itself afterwards."""

from dataclasses import dataclass

CONFIRM_REASON = 'the override has ended: call policy_server/enable to continue'


@dataclass
class Pause:
    """After an override the policy waits for a confirmation, unless `resume_after_override`.

    An operator who took over usually did so because the policy was wrong, and an open hand means stop.
    """

    resume_after_override: bool = False
    _overridden: bool = False

    def confirm(self) -> None:
        """The operator starts or continues the policy: an override before this does not count any more."""
        self._overridden = False

    def reason(self, override: str, slider: str) -> str:
        """Why the policy must pause now, from the reasons of an override and of the speed slider."""
        self._overridden = self._overridden or bool(override)
        if self._overridden and not self.resume_after_override:
            return override or slider or CONFIRM_REASON
        return override or slider
