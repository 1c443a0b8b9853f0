# SPDX-License-Identifier: Apache-2.0
"""docs/explanation/safety.md: its figures, its time constants, and the tests that it names."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from benchmark.safety import FAULTS, MODEL, PHASES_S, SPEED_M_S, meets_aim, worst
from groot_ros.control import publisher_binding
from groot_ros.control.command_gate import GateSettings
from groot_ros.hardware.ur5e import arm, servo_process
from groot_ros.hardware.ur5e.session import SessionSettings
from groot_ros.nodes import policy_parameters, teleop, ur5e_driver
from groot_ros.policies.runner_settings import RunnerSettings
from groot_ros.teleop import mapping

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / 'docs/explanation/safety.md').read_text()


def table(title):
    """The cells of the rows of the first table below a title."""
    lines = PAGE.split(f'## {title}\n')[1].split('\n## ')[0].splitlines()
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if line.startswith('|')]
    return rows[2:]


STOPS = {row[0]: row[1:] for row in table('How far the arm moves after a fault')}
CONSTANTS = {row[1]: row[2] for row in table('Time constants')}


def default(settings, name):
    return next(field.default for field in fields(settings) if field.name == name)


def test_the_table_of_stops_has_every_fault():
    shown = {name.replace('`~/enable` false', '`ur5e_driver/enable` with false') for name in FAULTS}
    assert STOPS.keys() == shown


@pytest.mark.parametrize('name', [name for name in FAULTS if name not in MODEL])
def test_the_arm_stops_as_the_page_says(name):
    """Of two of the four phases: no later and no farther than the page, and not much earlier either."""
    row = STOPS[name.replace('`~/enable` false', '`ur5e_driver/enable` with false')]
    still_ms = float(row[0].removesuffix(' ms'))
    distance_mm = float(row[1].removesuffix(' mm'))
    stop = worst(FAULTS[name], SPEED_M_S, PHASES_S[::2])
    assert still_ms / 2 < stop.still_s * 1e3 <= still_ms + 0.5
    assert distance_mm / 2 < stop.distance_m * 1e3 <= distance_mm + 0.5
    if row[3] == 'met':
        assert meets_aim(name, stop)


VALUES_S = {
    'a gamepad or space mouse without a message counts as let go': mapping.STALE_S,
    '`max_observation_age_s`': policy_parameters.PARAMETERS['max_observation_age_s'].default,
    '`max_blind_s`': default(RunnerSettings, 'max_blind_s'),
    '`echo_timeout_s`': default(RunnerSettings, 'echo_timeout_s'),
    '`max_command_age_s`': default(GateSettings, 'max_command_age_s'),
    '`command_timeout_s`': default(GateSettings, 'command_timeout_s'),
    'another publisher': publisher_binding._TAKEOVER_S,
    '`state_timeout_s`': default(SessionSettings, 'state_timeout_s'),
    'looks after all of these': ur5e_driver._WATCH_S,
    'a process of the robot': arm._SILENT_S,
    'looks for the beats': 1 / servo_process._BEAT_HZ,
    'its watchdog': 1 / servo_process._WATCHDOG_HZ,
}


@pytest.mark.parametrize('text', VALUES_S)
def test_time_constants_are_those_of_the_code(text):
    shown = [value for what, value in CONSTANTS.items() if text in what]
    assert shown == [f'{VALUES_S[text]:g} s']


def test_the_rate_of_teleop_is_that_of_the_code():
    rate_hz = teleop.PARAMETERS['rate_hz'].default
    assert CONSTANTS['rate of `teleop/tcp_delta` (`rate_hz`)'] == f'{rate_hz:g} Hz'


def test_every_test_that_the_page_names_exists():
    code = '\n'.join(path.read_text() for path in TESTS.glob('test_*.py'))
    there = set(re.findall(r'def (test_\w+)', code))
    named = set(re.findall(r'`(test_\w+)`', PAGE))
    assert (len(named) > 30, named - there) == (True, set())
