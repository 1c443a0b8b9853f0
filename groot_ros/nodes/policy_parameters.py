# SPDX-License-Identifier: Apache-2.0
"""The parameters of the policy server."""

from dataclasses import replace

from groot_ros.inference.backends import BACKEND_NAMES
from groot_ros.policies.chunk_scheduler import ScheduleSettings
from groot_ros.policies.factory import PolicyChoice
from groot_ros.policies.runner_settings import RunnerSettings
from groot_ros.resources import DEFAULT_EMBODIMENT
from groot_ros.ros.parameters import ParameterSpec, specs_from
from groot_ros.ros.transforms import FRAME_PARAMETERS

_SCHEDULE_SPECS = specs_from(ScheduleSettings)
PARAMETERS = {
    'embodiment': ParameterSpec(DEFAULT_EMBODIMENT, 'name of an embodiment, or path of its YAML file'),
    **FRAME_PARAMETERS,
    **specs_from(PolicyChoice),
    'dataset': ParameterSpec('', 'folder of the dataset, for replay'),
    'checkpoint': ParameterSpec('', f'folder of the checkpoint, for {BACKEND_NAMES}'),
    'shadow': ParameterSpec(False, 'compare the policy with what the operator does, and command nothing'),
    'shadow_report': ParameterSpec(
        '', 'JSON file for the result of shadow mode; a plot is written next to it'
    ),
    'task': ParameterSpec('', 'task of the policy, in words', may_change=True),
    'command_hz': ParameterSpec(0.0, 'commands per second, Hz; 0 for one per row', 0.0, 125.0),
    **_SCHEDULE_SPECS,
    # A UR5e follows its servo target with this delay.
    'robot_action_latency_s': replace(_SCHEDULE_SPECS['robot_action_latency_s'], default=0.13),
    **specs_from(RunnerSettings),
    'max_observation_age_s': ParameterSpec(0.3, 'a stream silent for longer stops the policy, s', 0.02, 5.0),
    'resume_after_override': ParameterSpec(
        False,
        'the policy continues by itself when an override ends, instead of waiting for ~/enable',
        may_change=True,
    ),
    'min_speed_scaling': ParameterSpec(
        0.05, 'the policy pauses below this share of the speed slider', 0.0, 1.0, may_change=True
    ),
}
