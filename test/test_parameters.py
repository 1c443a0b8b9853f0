# SPDX-License-Identifier: Apache-2.0
"""ROS parameters that are made from the fields of a settings dataclass."""

from dataclasses import dataclass

import numpy as np
import pytest
import rclpy

from groot_ros.errors import GrootRosError
from groot_ros.nodes.ur5e_driver import Ur5eDriver
from groot_ros.resources import share_directory
from groot_ros.ros.parameters import ParameterSpec, settings_from, specs_from
from groot_ros.settings import setting


@dataclass(frozen=True)
class ArmSettings:
    host: str
    speed_m_s: float = setting(0.5, 'maximum speed, m/s', 0.01, 1.0)
    port: int = setting(5555, 'port', 1, 65535)
    corner_m: np.ndarray = setting(np.array([1.0, 2.0]), 'corner of the workspace, m')
    names: tuple[str, ...] = setting(('a', 'b'), 'names')


def test_default_description_and_range_come_from_the_field():
    specs = specs_from(ArmSettings)
    assert list(specs) == ['speed_m_s', 'port', 'corner_m', 'names']
    assert specs['speed_m_s'] == ParameterSpec(0.5, 'maximum speed, m/s', 0.01, 1.0)
    assert specs['corner_m'].default == [1.0, 2.0]
    assert specs['names'].default == ['a', 'b']


def test_a_range_is_of_the_type_of_the_default():
    specs = specs_from(ArmSettings)
    assert specs['speed_m_s'].descriptor().floating_point_range[0].to_value == 1.0
    assert specs['port'].descriptor().integer_range[0].to_value == 65535
    assert not specs['names'].descriptor().floating_point_range


def test_parameter_values_become_settings_of_the_declared_types():
    values = {'speed_m_s': 0.2, 'port': 1, 'corner_m': [3.0, 4.0], 'names': ['c'], 'other': True}
    settings = settings_from(ArmSettings, values, host='robot')
    assert settings.host == 'robot'
    assert settings.speed_m_s == 0.2
    assert settings.names == ('c',)
    np.testing.assert_array_equal(settings.corner_m, [3.0, 4.0])


def test_instances_do_not_share_their_defaults():
    first = ArmSettings('robot')
    first.corner_m[0] = 9.0
    assert ArmSettings('robot').corner_m[0] == 1.0


@pytest.fixture
def make_arm_driver():
    """Makes a ur5e_driver with the arguments of a command line."""
    nodes = []

    def make(*arguments: str) -> Ur5eDriver:
        rclpy.init(args=['--ros-args', *arguments])
        nodes.append(Ur5eDriver())
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()


_MISSPELT = r"ur5e_driver has no parameter 'max_linear_sped_m_s'; the nearest is max_linear_speed_m_s"


def test_a_misspelt_parameter_is_refused_with_the_nearest_name(make_arm_driver):
    """The limit was not read, and the arm had its default speed."""
    with pytest.raises(GrootRosError, match=_MISSPELT):
        make_arm_driver('-p', 'max_linear_sped_m_s:=0.05')


@pytest.mark.parametrize('section', ['/**', '/**/ur5e_driver', 'ur5e_driver'])
def test_a_misspelt_parameter_in_a_file_is_refused(make_arm_driver, tmp_path, section):
    path = tmp_path / 'cell.yaml'
    path.write_text(f'{section}:\n  ros__parameters: {{max_linear_sped_m_s: 0.05}}\n')
    with pytest.raises(GrootRosError, match=_MISSPELT):
        make_arm_driver('--params-file', str(path))


def test_a_file_may_have_the_parameters_of_other_nodes_and_of_ros(make_arm_driver, tmp_path):
    path = tmp_path / 'cell.yaml'
    path.write_text(
        '/**/recorder:\n  ros__parameters: {output_dir: x}\n'
        '/**:\n  ros__parameters: {use_sim_time: false}\n'
        'ur5e_driver:\n  ros__parameters: {payload_kg: 1.5}\n'
    )
    assert make_arm_driver('--params-file', str(path)).parameter('payload_kg') == 1.5


def test_the_parameters_of_the_demo_are_those_of_its_nodes(make_arm_driver):
    path = share_directory() / 'config' / 'demo.yaml'
    assert make_arm_driver('--params-file', str(path)).parameter('command_timeout_s') == 0.6
