# SPDX-License-Identifier: Apache-2.0
"""What differs between ROS distributions: the profile of Fast DDS, and rclpy's executors."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from groot_ros.action import ConvertEpisodes
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor

from groot_ros.ros import fastdds
from groot_ros.ros.run import make_executor

HIDDEN = 'rclpy.experimental.events_executor'
SEGMENT_BYTES = 64 << 20
# Prints the largest segment of shared memory that a participant with our profile has mapped.
MEASURE = """
import os
from groot_ros.ros.fastdds import configure_fastdds_profile
configure_fastdds_profile()
import rclpy
rclpy.init()
node = rclpy.create_node('measured')
mapped = {line.split()[-1] for line in open('/proc/self/maps') if '/dev/shm/' in line}
print(max(os.path.getsize(file) for file in mapped))
"""
# A node whose rclpy has no EventsExecutor.
WITHOUT = f"""
import sys
sys.modules[{HIDDEN!r}] = None
from groot_ros.nodes import converter
raise SystemExit(converter.main())
"""


def elements(file) -> list:
    """All elements of a profile, with their texts, in order."""
    return [(node.tag.split('}')[1], (node.text or '').strip()) for node in ET.parse(file).iter()]


def test_the_two_profiles_differ_in_one_name_only():
    old = elements(fastdds.profile_file(2))
    new = elements(fastdds.profile_file(3))
    differences = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert differences == [(('heartbeatPeriod', ''), ('heartbeat_period', ''))]
    assert ('segment_size', str(SEGMENT_BYTES)) in new


@pytest.mark.parametrize(('package', 'version'), [('fastrtps', 2), ('fastdds', 3)])
def test_the_profile_is_that_of_the_installed_version(tmp_path, monkeypatch, package, version):
    (tmp_path / 'share' / package).mkdir(parents=True)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    for name in fastdds.PROFILE_VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fastdds, '_free_shared_memory', lambda: 2 << 30)
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    fastdds.configure_fastdds_profile()
    chosen = {name: os.environ.get(name) for name in fastdds.PROFILE_VARIABLES.values()}
    expected = dict.fromkeys(chosen)
    expected[fastdds.PROFILE_VARIABLES[version]] = str(fastdds.profile_file(version))
    assert chosen == expected


@pytest.mark.parametrize('name', fastdds.PROFILE_VARIABLES.values())
def test_a_profile_that_the_user_chose_is_kept(monkeypatch, name):
    monkeypatch.setattr(os, 'environ', {**os.environ, name: 'mine.xml'})
    before = dict(os.environ)
    fastdds.configure_fastdds_profile()
    assert dict(os.environ) == before


def test_fast_dds_takes_the_profile_without_a_word():
    if fastdds._free_shared_memory() <= 1 << 30:
        pytest.skip('/dev/shm is small here')
    measured = subprocess.run([sys.executable, '-c', MEASURE], capture_output=True, text=True, check=True)
    assert int(measured.stdout) > SEGMENT_BYTES
    assert measured.stderr == ''


def test_without_the_experimental_executor_there_is_the_default_one(monkeypatch, operator):
    assert 'EventsExecutor' in type(make_executor()).__name__
    monkeypatch.setitem(sys.modules, HIDDEN, None)
    assert isinstance(make_executor(), SingleThreadedExecutor)


def test_a_node_serves_goals_and_ends_in_order_without_the_experimental_executor(
    operator, tmp_path, synthetic
):
    synthetic().record(tmp_path / 'bags' / 'episode_000000')
    node = subprocess.Popen([sys.executable, '-c', WITHOUT], stderr=subprocess.PIPE, text=True)
    client = ActionClient(operator.node, ConvertEpisodes, 'converter/convert')
    try:
        assert operator.until(client.server_is_ready)
        goal = ConvertEpisodes.Goal(sources=[str(tmp_path / 'bags')], output=str(tmp_path / 'set'))
        accepted = client.send_goal_async(goal)
        assert operator.until(accepted.done)
        ended = accepted.result().get_result_async()
        assert operator.until(ended.done)
        assert (ended.result().result.success, ended.result().result.rows) == (True, 29)
    finally:
        client.destroy()
        node.terminate()
        errors = node.communicate(timeout=20)[1]
    assert (node.returncode, 'Traceback' in errors) == (0, False)
