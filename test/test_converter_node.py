# SPDX-License-Identifier: Apache-2.0
"""The converter on real rclpy: goals of ~/convert, and a folder that it watches."""

import json

import pytest
from groot_ros.action import ConvertEpisodes
from rclpy.action import ActionClient

from groot_ros.recording.episode_folder import EpisodeFolder, IndexEntry


@pytest.fixture
def send(operator):
    """Sends a goal and gives its handle and the feedback that comes."""
    clients = []

    def send(**goal):
        client = ActionClient(operator.node, ConvertEpisodes, 'converter/convert')
        clients.append(client)
        assert operator.until(client.server_is_ready)
        feedback = []
        future = client.send_goal_async(
            ConvertEpisodes.Goal(**goal), feedback_callback=lambda message: feedback.append(message.feedback)
        )
        assert operator.until(future.done)
        return future.result(), feedback

    yield send
    for client in clients:
        client.destroy()


def result_of(operator, handle):
    future = handle.get_result_async()
    assert operator.until(future.done)
    return future.result().result


def test_a_goal_converts_and_reports_its_progress(tmp_path, synthetic, operator, start_node, send):
    for index in range(2):
        synthetic(place_m=index / 100).record(tmp_path / 'bags' / f'episode_{index:06d}')
    start_node('converter')
    handle, feedback = send(sources=[str(tmp_path / 'bags')], output=str(tmp_path / 'set'))
    result = result_of(operator, handle)
    assert (result.success, result.episodes, result.rows) == (True, 2, 58)
    assert '2 episodes, 58 rows' in result.message
    assert operator.until(lambda: feedback and feedback[-1].done == feedback[-1].total == 2)
    handle, _ = send(sources=[str(tmp_path / 'bags')], output=str(tmp_path / 'set'))
    refused = result_of(operator, handle)
    assert not refused.success
    assert 'exists already' in refused.message
    assert 'needs sources' in result_of(operator, send()[0]).message


def test_a_cancelled_goal_keeps_what_is_done(tmp_path, synthetic, operator, start_node, send):
    for index in range(6):
        synthetic(seconds=3, place_m=index / 100).record(tmp_path / 'bags' / f'episode_{index:06d}')
    start_node('converter')
    goal = {'sources': [str(tmp_path / 'bags')], 'output': str(tmp_path / 'set')}
    handle, feedback = send(**goal)
    assert operator.until(lambda: feedback)
    assert not send(**goal)[0].accepted
    handle.cancel_goal_async()
    result = result_of(operator, handle)
    assert not result.success
    assert 'the same goal continues it' in result.message
    assert not (tmp_path / 'set').exists()
    assert (tmp_path / '.set.partial/parts').is_dir()
    assert result_of(operator, send(**goal)[0]).episodes == 6


def test_episodes_are_converted_as_they_are_finished(tmp_path, synthetic, operator, start_node):
    folder = EpisodeFolder(tmp_path / 'episodes')  # as a recorder that is at work
    synthetic().record(tmp_path / 'episodes/episode_000000')
    folder.add(IndexEntry('episode_000000', 'move the cube', 'success', 'pass', 30, 1.5))
    synthetic(place_m=0.01).record(tmp_path / 'episodes/episode_000001')
    start_node('converter', '--watch', str(tmp_path / 'episodes'), '--output', str(tmp_path / 'set'))
    info = tmp_path / 'set/meta/info.json'

    def converted():
        return json.loads(info.read_text())['total_episodes'] if info.exists() else 0

    assert operator.until(lambda: converted() == 1)
    synthetic(seconds=0.4).record(tmp_path / 'episodes/episode_000002')
    for name in (
        'episode_000001',
        'episode_000002',
    ):  # the second is too short, which is reported and stops nothing
        folder.add(IndexEntry(name, 'move the cube', 'success', 'pass', 30, 1.5))
    assert operator.until(lambda: converted() == 2)
    folder.close()


def test_watching_without_an_output_is_refused(tmp_path, start_node):
    process = start_node('converter', '--watch', str(tmp_path))
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert '--watch needs --output' in text
