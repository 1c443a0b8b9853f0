# SPDX-License-Identifier: Apache-2.0
"""Nodes refuse parameters that they do not have, so profiles and shipped files may give no others."""

import importlib
from pathlib import Path

import pytest
import yaml

from groot_ros.bringup.profiles import Options, Process, build_processes, parameter_files

_OPTIONS = {
    'drivers': Options(),
    'collect': Options(sim=True, shadow=True, policy='hold'),
    'deploy': Options(policy='remote'),
    'record': Options(sim=True),
}


def parameters_in_file(path: str, node: str) -> set[str]:
    sections = yaml.safe_load(Path(path).read_text())
    found = [body['ros__parameters'] for name, body in sections.items() if name in ('/**', f'/**/{node}')]
    return {name for parameters in found for name in parameters}


def given_parameters(process: Process, options: Options) -> set[str]:
    names = set(process.parameters)
    for path in parameter_files(process, options):
        names |= parameters_in_file(path, process.node_name)
    return names


@pytest.mark.parametrize('profile', _OPTIONS)
def test_a_profile_gives_each_node_parameters_that_it_has(profile):
    options = _OPTIONS[profile]
    for process in build_processes(profile, options):
        given = given_parameters(process, options)
        known = getattr(importlib.import_module(f'groot_ros.nodes.{process.executable}'), 'PARAMETERS', {})
        assert given <= set(known), process.executable
