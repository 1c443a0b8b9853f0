# SPDX-License-Identifier: Apache-2.0
"""Writes report.html of finished episodes in processes of their own, so that the recorder is not delayed."""

import os
import subprocess
import sys
from pathlib import Path

from groot_ros.resources import REPORT_FILE


class ReportProcesses:
    """Runs `groot-ros inspect` for episodes, only while the CPU is idle: the next episode may be running."""

    def __init__(self, thresholds: str) -> None:
        self.thresholds = thresholds
        self._running: list[subprocess.Popen] = []

    def start(self, bag: Path) -> None:
        """Starts to write report.html into the folder of a bag."""
        report = str(bag / REPORT_FILE)
        command = [sys.executable, '-m', 'groot_ros.cli', 'inspect', str(bag), '--report', report]
        if self.thresholds:
            command += ['--quality-thresholds', self.thresholds]
        self._running = [process for process in self._running if process.poll() is None]
        process = subprocess.Popen(
            command, preexec_fn=_set_idle_priority, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._running.append(process)

    def terminate(self) -> None:
        """Ends the reports that are not finished."""
        for process in self._running:
            process.terminate()


def _set_idle_priority() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
