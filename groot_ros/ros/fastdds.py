# SPDX-License-Identifier: Apache-2.0
"""Selects config/fastdds.xml, which explains why images need more shared memory than the default."""

import os
import shutil
from pathlib import Path

from groot_ros.resources import share_directory

_SHARED_MEMORY = Path('/dev/shm')
_REQUIRED_BYTES = 1 << 30
_PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


def configure_fastdds_profile() -> None:
    """Selects the profile for this process, unless the user has chosen one. Call it before rclpy.init.

    Keeps the default profile where shared memory is scarce, as in a container with Docker's 64 MiB:
    Linux ends a process with SIGBUS when it writes to a segment that does not fit.
    """
    chosen_by_user = any(name in os.environ for name in _PROFILE_VARIABLES)
    if not chosen_by_user and _free_shared_memory() > _REQUIRED_BYTES:
        os.environ[_PROFILE_VARIABLES[0]] = str(share_directory() / 'config' / 'fastdds.xml')


def _free_shared_memory() -> int:
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else 0
