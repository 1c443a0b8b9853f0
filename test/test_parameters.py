# SPDX-License-Identifier: Apache-2.0
"""ROS parameters that are made from the fields of a settings dataclass."""

from dataclasses import dataclass

import numpy as np

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
