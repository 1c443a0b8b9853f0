# SPDX-License-Identifier: Apache-2.0
"""Requests to the robot's dashboard server: is it ready, recover from a stop. Used by servo_process.py."""

import contextlib
import time
from collections.abc import Callable, Iterator

from dashboard_client import DashboardClient

_UNLOCK_S = 8.0
_POWER_S = 30.0
_CB3_RATE_HZ = 125.0


@contextlib.contextmanager
def dashboard(host: str) -> Iterator[DashboardClient]:
    """A connected client; raises RuntimeError where the server does not answer within 2 s."""
    client = DashboardClient(host)
    try:
        client.connect(2000)
    except Exception as error:  # the library lets Boost's exceptions through
        raise RuntimeError(f'the dashboard server at {host}:29999 does not answer ({error})') from error
    try:
        yield client
    finally:
        client.disconnect()


def check_ready(host: str, servo_rate_hz: float, ours_runs: bool) -> None:
    """Raises RuntimeError, saying what to do, if this package cannot command the robot at `host`.

    `ours_runs` says that the program on the robot may be ours. Any other program is an error, since uploading
    our script would end it without a question.
    """
    with dashboard(host) as client:
        model = client.getRobotModel()
        mode = client.robotmode()
        version = client.polyscopeVersion()
        remote = _major(version) < 5 or client.isInRemoteControl()  # a CB3 has no local control
        foreign = not ours_runs and client.running()
    if not model.startswith('UR5'):
        raise RuntimeError(
            f'the robot is a {model}, but the kinematics and limits of this package are those of a UR5e'
        )
    if _major(version) < 5 and servo_rate_hz > _CB3_RATE_HZ:
        raise RuntimeError(
            f'the controller runs {version}, a CB3 at 125 Hz: set servo_rate_hz and state_rate_hz to 125'
        )
    if not mode.endswith('RUNNING'):
        raise RuntimeError(
            f'the robot says "{mode}": call ~/recover, or power it on and release its brakes on the pendant'
        )
    if not remote:
        raise RuntimeError('the robot is in local control: switch it to remote control on the teach pendant')
    if foreign:
        raise RuntimeError('another program runs on the robot: stop it on the teach pendant first')


def stop_program(host: str) -> None:
    """Stops the program that is loaded, also a paused one. Raises RuntimeError where that fails."""
    with dashboard(host) as client:
        client.stop()


def recover(host: str, show_step: Callable[[str], None]) -> None:
    """Brings the robot back from a protective stop, or from an emergency stop whose button is released.

    UR's sequence: close the popup, unlock 5 s after the stop, stop the paused program (playing it would move
    to an old target), then switch on power and release brakes if needed. `show_step` gets what is done now.
    Raises RuntimeError, saying what to do, if the robot may not be recovered this way.
    """
    show_step('recovering: asking the dashboard')
    with dashboard(host) as client:
        if _major(client.polyscopeVersion()) >= 5 and not client.isInRemoteControl():
            raise RuntimeError(
                'the robot is in local control: switch it to remote control on the teach pendant'
            )
        safety = client.safetymode().rsplit(' ', 1)[-1]
        if 'EMERGENCY' in safety:
            raise RuntimeError('an emergency stop is pressed: release the button first')
        if safety in ('VIOLATION', 'FAULT'):
            raise RuntimeError(f'the safety system is in {safety}: it needs a person at the teach pendant')
        if safety == 'SAFEGUARD_STOP':
            raise RuntimeError('a safeguard stop is active: close the fence or reset the safeguard first')
        client.closeSafetyPopup()
        if safety == 'PROTECTIVE_STOP':
            show_step('recovering: unlocking the protective stop')
            _unlock(client)
        with contextlib.suppress(RuntimeError):  # raised where no program is loaded
            client.stop()
        _power_up(client, show_step)


def _unlock(client: DashboardClient) -> None:
    deadline_s = time.monotonic() + _UNLOCK_S
    while True:
        try:
            client.unlockProtectiveStop()
        except RuntimeError as error:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f'the protective stop cannot be unlocked: {error}') from error
            time.sleep(0.25)
        else:
            return


def _power_up(client: DashboardClient, show_step: Callable[[str], None]) -> None:
    shown = ''
    deadline_s = time.monotonic() + _POWER_S
    while not (mode := client.robotmode()).endswith('RUNNING'):
        if mode != shown:
            show_step(f'recovering: the robot says "{mode}"')
            shown = mode
        if mode.endswith('POWER_OFF'):
            client.powerOn()
        elif mode.endswith('IDLE'):
            client.brakeRelease()
        if time.monotonic() > deadline_s:
            raise RuntimeError(f'the robot stays in "{mode}"')
        time.sleep(0.2)


def _major(version: str) -> int:
    """5 of '5.13.1.1000000' and of 'URSoftware 5.13.1.1000000 (Jan 01 2023)'."""
    digits = next((word for word in version.split() if word[:1].isdigit()), '5')
    return int(digits.split('.')[0])
