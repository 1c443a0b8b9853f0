# SPDX-License-Identifier: Apache-2.0
"""Chooses what MuJoCo renders with, before the first import of mujoco, which reads the choice once."""

import os
import subprocess
import sys

from groot_ros.errors import GrootRosError

_VARIABLE = 'MUJOCO_GL'
_BACKENDS = ('egl', 'osmesa')
_TRIAL = 'import mujoco; context = mujoco.GLContext(16, 16); context.make_current(); context.free()'
_TRIAL_S = 60.0


def choose_gl_backend() -> str:
    """Sets MUJOCO_GL to the first backend that renders without a display, unless it is set; returns it.

    Raises GrootRosError if none does.
    """
    chosen = os.environ.get(_VARIABLE)
    if chosen:
        return chosen
    for backend in _BACKENDS:
        if _renders(backend):
            os.environ[_VARIABLE] = backend
            return backend
    raise GrootRosError(
        'MuJoCo cannot render without a display here: install libegl1 and libgl1-mesa-dri, or libosmesa6.'
    )


def _renders(backend: str) -> bool:
    """Tries a backend in a process of its own: a graphics driver may crash, and the choice is for good."""
    environment = {**os.environ, _VARIABLE: backend}
    try:
        trial = subprocess.run(
            [sys.executable, '-c', _TRIAL], env=environment, capture_output=True, timeout=_TRIAL_S
        )
    except subprocess.TimeoutExpired:
        return False
    return trial.returncode == 0
