"""The driver's side of the arm: starts, feeds and supervises the process that owns ur_rtde."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection

import numpy as np

from groot_ros.control.gate import Waypoint
from groot_ros.hardware.ur5e_records import QUIT, START, STATE, STOP, WAYPOINT, command

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 8.0
_SILENT_S = 1.0
_START_S = 8.0


@dataclass
class Ur5eSettings:
    """How to reach and move the arm; the tool offset is UR's x y z rx ry rz from flange to TCP."""

    host: str = '192.168.1.100'
    state_rate_hz: float = 125.0
    servo_rate_hz: float = 500.0
    lookahead_s: float = 0.1
    gain: float = 300.0
    tcp_offset: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.174, 0.0, 0.0, 0.0])
    payload_kg: float = 0.94
    payload_centre_m: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.06])


class Ur5e:
    """Calls `on_state` with each STATE record and `on_loss` with a sentence when the child dies or falls silent."""

    def __init__(self, settings: Ur5eSettings, on_state: Callable[[np.void], None], on_loss: Callable[[str], None]) -> None:
        self.settings = settings
        self._on_state, self._on_loss = on_state, on_loss
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._pipe: Connection | None = None
        self._busy_until_s = 0.0
        self._thread = threading.Thread(target=self._supervise, name='ur5e', daemon=True)
        self._thread.start()

    def start(self) -> None:
        """Lets the child hold the robot's target pose and follow waypoints; uploading the script may take seconds."""
        self._busy_until_s = time.monotonic() + _START_S
        self._send(command(START))

    def move(self, waypoint: Waypoint) -> None:
        """Passes a waypoint on."""
        self._send(command(WAYPOINT, waypoint.start_s, waypoint.end_s, waypoint.pose))

    def stop(self) -> None:
        """Slows the arm down."""
        self._send(command(STOP))

    def close(self) -> None:
        """Leaves the arm holding and the script stopped, and ends the child."""
        self._closing.set()
        self._send(command(QUIT))
        self._thread.join(6.0)

    def _send(self, record: bytes) -> None:
        with self._lock:
            if self._pipe is not None:
                try:
                    self._pipe.send_bytes(record)
                except OSError:
                    self._pipe = None

    def _supervise(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._closing.is_set():
            began_s = time.monotonic()
            reason = self._run_child()
            if self._closing.is_set():
                return
            self._on_loss(reason)
            backoff_s = _FIRST_BACKOFF_S if time.monotonic() - began_s > 30 else min(backoff_s * 2, _LONGEST_BACKOFF_S)
            self._closing.wait(backoff_s)

    def _run_child(self) -> str:
        """Runs one child to its end and says why it ended."""
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, '-m', 'groot_ros.hardware.ur5e_child', str(theirs.fileno()), json.dumps(asdict(self.settings))],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        pipe = Connection(ours.detach())
        with self._lock:
            self._pipe = pipe
        reason = self._read_states(pipe)
        with self._lock:
            self._pipe = None
            pipe.close()
        if reason:
            process.kill()
        ended = _ended(process)
        return reason or ended

    def _read_states(self, pipe: Connection) -> str:
        """Hands on states until the pipe closes, which returns '', or falls silent."""
        self._busy_until_s = time.monotonic() + _START_S
        try:
            while pipe.poll(max(_SILENT_S, self._busy_until_s - time.monotonic())):
                self._on_state(np.frombuffer(pipe.recv_bytes(), STATE)[0])
        except (EOFError, OSError):
            return ''
        return '' if self._closing.is_set() else f'no data from {self.settings.host}'


def _ended(process: subprocess.Popen) -> str:
    try:
        _, text = process.communicate(timeout=3.0)
    except subprocess.TimeoutExpired:
        process.kill()
        _, text = process.communicate()
    if process.returncode < 0:
        return f'ur_rtde ended with {signal.Signals(-process.returncode).name}'
    lines = text.strip().splitlines()
    return lines[-1] if lines else 'the connection to the robot ended'
