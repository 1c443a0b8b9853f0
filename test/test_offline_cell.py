# SPDX-License-Identifier: Apache-2.0
"""The simulated cell in made-up time, its scripted demonstrations, and the dataset that they make."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groot_ros.cli.main import main
from groot_ros.control.command_gate import TELEOP, GateState
from groot_ros.control.limits import RefusedError
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.validation.validate import validate
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import apply_delta
from groot_ros.sim import gl_backend, scripted_operator
from groot_ros.sim.offline import collect as collect_module
from groot_ros.sim.offline.cell import OfflineCell
from groot_ros.sim.offline.collect import CollectSettings, collect
from groot_ros.sim.offline.demonstration import Demonstrator, Scenario
from groot_ros.sim.offline.recording import FrameClock
from groot_ros.sim.offline.topics import check_topics
from groot_ros.sim.scene import HOME_JOINTS_RAD
from groot_ros.sim.scripted_operator import grasp_yaw, is_held, pick_and_place, tool_yaw

START = np.array([-0.1, -0.48, 0.25, 0.0, 1.0, 0.0, 0.0])
CUBE = (-0.15, -0.5, 0.3)


def turned(yaw_rad, position=(0.0, 0.0, 0.02)):
    return np.array([*position, 0.0, 0.0, np.sin(yaw_rad / 2), np.cos(yaw_rad / 2)])


def tool_at(yaw_rad):
    return apply_delta(START, np.array([0, 0, 0, 0, 0, yaw_rad]))


@pytest.fixture
def offline():
    cell = OfflineCell()
    cell.reset(START, CUBE, HOME_JOINTS_RAD)
    return cell


@given(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5))
def test_the_grasp_is_aligned_with_the_cube_and_the_nearest_of_the_four(cube_yaw, near):
    yaw = grasp_yaw(turned(cube_yaw), near)
    quarter_turns = (yaw - cube_yaw) / (np.pi / 2)
    assert quarter_turns == pytest.approx(round(quarter_turns), abs=1e-9)
    assert abs(yaw - near) <= np.pi / 4 + 1e-9


def test_of_two_grasps_that_are_equally_near_the_same_is_chosen_always():
    assert grasp_yaw(turned(np.pi / 4 - 1e-12), 0.0) == pytest.approx(np.pi / 4)
    assert grasp_yaw(turned(np.pi / 4 + 1e-12), 0.0) == pytest.approx(-np.pi / 4)
    assert grasp_yaw(turned(-np.pi / 4 + 1e-12), 0.0) == pytest.approx(-np.pi / 4)


@given(st.floats(-1.5, 1.5))
def test_the_yaw_of_a_tool_is_the_angle_by_which_it_was_turned(yaw):
    assert tool_yaw(tool_at(yaw)) == pytest.approx(yaw, abs=1e-9)


def test_a_cube_is_held_when_closed_fingers_are_around_it():
    cube = turned(0.0, START[:3])
    assert is_held(cube, START, 0.47)
    assert not is_held(cube, START, 1.0)
    assert not is_held(cube, START, 0.0)
    assert not is_held(turned(0.0), START, 0.47)


def test_from_next_to_the_cube_the_tool_opens_and_rises_first():
    low = np.concatenate([START[:2], [0.03], START[3:]])
    moves = pick_and_place(turned(0.2, (-0.15, -0.5, 0.02)), low, opening=0.3)
    assert moves[0].opening == 1.0
    assert np.array_equal(moves[0].pose, low)
    assert np.array_equal(moves[1].pose[:2], low[:2])
    assert moves[1].pose[2] > 0.1


def test_a_command_moves_the_arm_by_its_delta(offline):
    delta = np.array([0.004, 0.0, -0.002, 0.0, 0.0, 0.01])
    for number in range(25):
        offline.command(TELEOP, number, delta if number < 10 else np.zeros(6), 0.02, 0.5)
        for _ in range(10):
            offline.advance()
    moved = offline.measured[:3] - START[:3]
    assert moved == pytest.approx([0.04, 0.0, -0.02], abs=2e-3)
    assert offline.opening == pytest.approx(0.5, abs=0.03)
    assert offline.now_s == pytest.approx(0.5)


def test_silence_stops_the_arm(offline):
    offline.command(TELEOP, 0, np.array([0.004, 0, 0, 0, 0, 0]), 0.02, 1.0)
    for _ in range(150):
        offline.advance()
    assert offline.gate.state is GateState.STOPPED
    assert offline.command(TELEOP, 1, np.zeros(6), 0.02, 1.0) is None
    assert 'not enabled' in offline.refusals[0]


def test_a_start_that_is_out_of_reach_is_refused(offline):
    with pytest.raises(RefusedError):
        offline.reset(np.array([2.0, 0, 0.3, 0, 1.0, 0, 0]), CUBE, HOME_JOINTS_RAD)


def test_runs_of_one_cell_do_not_depend_on_those_before(offline):
    scenario = Scenario(START, CUBE, None, np.zeros(6), False)
    poses = []
    for _ in range(2):
        demonstrator = Demonstrator(offline)
        demonstrator.prepare(scenario)
        assert demonstrator.demonstrate(lambda: None)
        poses.append([*offline.physics.cube_pose, *offline.controller.actual.positions])
    assert poses[0] == poses[1]


@pytest.mark.parametrize('disturbed_at', [0.1, 0.35, 0.7])
def test_the_operator_recovers_from_pushes_and_missed_grasps(offline, disturbed_at):
    push = np.array([0.03, -0.02, 0.02, 0.05, 0.0, 0.2])
    demonstrator = Demonstrator(offline)
    demonstrator.prepare(Scenario(START, CUBE, disturbed_at, push, missed=True))
    began_s = offline.now_s
    assert demonstrator.demonstrate(lambda: None)
    assert began_s > 0.5
    assert not offline.refusals


def test_every_camera_of_the_embodiment_is_in_the_scene():
    check_topics(load_embodiment('ur5e_robotiq_zed_wrist'))


def test_frames_come_at_their_rate_also_where_it_is_no_multiple_of_the_step():
    clock = FrameClock(fps=30, first_step=7)
    due = [step for step in range(7, 507) if clock.due(step)]
    assert due[:4] == [7, 24, 41, 57]
    assert len(due) == 30


def test_an_embodiment_with_other_topics_is_refused():
    with pytest.raises(GrootRosError, match='simulated cell has'):
        check_topics(load_embodiment('ur5e_ros2_drivers'))


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    output = tmp_path_factory.mktemp('collected') / 'dataset'
    run_demonstrate('--episodes', '2', '--workers', '2', '--output', str(output))
    return output


def run_demonstrate(*arguments):
    """In a process of its own, since MuJoCo chooses its renderer once, when it is imported."""
    command = [sys.executable, '-m', 'groot_ros.cli', 'demonstrate', '--quiet', *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_dataset_is_valid_and_says_which_seed_made_an_episode(dataset):
    report = validate(dataset)
    assert report.errors == 0
    episodes = json.loads((dataset / 'meta' / 'conversion.json').read_text())['episodes']
    assert [episode['source'] for episode in episodes] == [
        'demonstration seed 0 episode 0 disturbed 0.5',
        'demonstration seed 0 episode 1 disturbed 0.5',
    ]
    assert all(episode['notes']['attempts'] >= 1 for episode in episodes)


def test_the_pose_of_a_row_and_its_successor_are_columns(dataset):
    table = pq.read_table(dataset / 'data' / 'chunk-000' / 'episode_000000.parquet')
    states = np.array(table['observation.eef_9d'].to_pylist())
    actions = np.array(table['action.eef_9d'].to_pylist())
    assert actions[:-1] == pytest.approx(states[1:], abs=1e-6)


def test_the_dataset_does_not_depend_on_the_workers(dataset, tmp_path):
    run_demonstrate('--episodes', '1', '--output', str(tmp_path / 'alone'))
    for name in ('data/chunk-000/episode_000000.parquet', *video_names(tmp_path / 'alone')):
        assert (tmp_path / 'alone' / name).read_bytes() == (dataset / name).read_bytes()


def video_names(root):
    return [str(path.relative_to(root)) for path in sorted(root.glob('videos/**/*_000000.mp4'))]


def test_what_fails_is_not_written(tmp_path, monkeypatch):
    outcomes = iter([False, True])
    black = np.zeros((48, 64, 3), np.uint8)
    renderer = SimpleNamespace(width=64, height=48, render=lambda qpos, camera: black)
    monkeypatch.setattr(collect_module, '_renderer', lambda: renderer)
    monkeypatch.setattr(
        collect_module,
        'Demonstrator',
        lambda cell: SimpleNamespace(
            prepare=lambda scenario: cell.reset(START, CUBE, HOME_JOINTS_RAD),
            demonstrate=lambda on_step: hold_still(cell, on_step) or next(outcomes),
        ),
    )
    embodiment = load_embodiment('ur5e_robotiq_zed')
    report = collect(CollectSettings(1), tmp_path / 'dataset', embodiment, ConversionOptions())
    assert report.episodes == 1
    notes = json.loads((tmp_path / 'dataset' / 'meta' / 'conversion.json').read_text())['episodes'][0]
    assert notes['notes']['attempts'] == 2
    assert not list((tmp_path / 'dataset').rglob('attempt_*'))


def hold_still(cell, on_step):
    for _ in range(500):
        cell.advance()
        on_step()


def test_an_existing_dataset_is_refused(dataset):
    assert main(['demonstrate', '--episodes', '1', '--output', str(dataset), '--quiet']) == 1


def test_collecting_needs_no_ros():
    code = (
        "import sys; sys.modules['rclpy'] = None; sys.modules['groot_ros.msg'] = None; "
        'import groot_ros.sim.offline.collect'
    )
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0


def test_the_first_backend_that_renders_is_chosen(monkeypatch):
    tried = []

    def run(command, env, **options):
        tried.append(env['MUJOCO_GL'])
        return SimpleNamespace(returncode=int(env['MUJOCO_GL'] != 'osmesa'))

    monkeypatch.setattr(gl_backend.subprocess, 'run', run)
    monkeypatch.delenv('MUJOCO_GL')
    assert gl_backend.choose_gl_backend() == 'osmesa'
    assert tried == ['egl', 'osmesa']
    assert gl_backend.choose_gl_backend() == 'osmesa'
    assert len(tried) == 2


def test_without_a_backend_the_way_out_is_told(monkeypatch):
    monkeypatch.setattr(gl_backend.subprocess, 'run', lambda *_, **__: SimpleNamespace(returncode=1))
    monkeypatch.delenv('MUJOCO_GL')
    with pytest.raises(GrootRosError, match='libosmesa6'):
        gl_backend.choose_gl_backend()


def test_the_operator_places_the_cube_that_it_holds():
    held = turned(0.0, START[:3])
    moves = pick_and_place(held, START, opening=0.47)
    assert moves[0].opening == 0.0
    assert moves[-2].opening == 1.0
    assert moves[1].pose[:2] == pytest.approx(scripted_operator.BIN_CENTRE_M)
