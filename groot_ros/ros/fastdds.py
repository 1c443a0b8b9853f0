# SPDX-License-Identifier: Apache-2.0
"""Selects config/fastdds_2.xml or fastdds_3.xml, which explain why images need more shared memory."""

import os
import shutil
from pathlib import Path

from groot_ros.resources import prefixes, share_directory

_SHARED_MEMORY = Path('/dev/shm')
_REQUIRED_BYTES = 1 << 30
# Of the major versions of Fast DDS: the variable that names its profile. Each refuses the other's file whole,
# because one element has another name. Version 3 reads the variable of version 2 too, with a warning.
PROFILE_VARIABLES = {2: 'FASTRTPS_DEFAULT_PROFILES_FILE', 3: 'FASTDDS_DEFAULT_PROFILES_FILE'}


def configure_fastdds_profile() -> None:
    """Selects the profile for this process, unless the user has chosen one. Call it before rclpy.init.

    Keeps the default profile where shared memory is scarce, as in a container with Docker's 64 MiB:
    Linux ends a process with SIGBUS when it writes to a segment that does not fit.
    """
    chosen_by_user = any(name in os.environ for name in PROFILE_VARIABLES.values())
    if not chosen_by_user and _free_shared_memory() > _REQUIRED_BYTES:
        version = fastdds_version()
        os.environ[PROFILE_VARIABLES[version]] = str(profile_file(version))


def fastdds_version() -> int:
    """The major version of the Fast DDS that is installed, 2 or 3: with version 3 the package was renamed."""
    for prefix in prefixes():
        if (prefix / 'share' / 'fastdds').is_dir():
            return 3
        if (prefix / 'share' / 'fastrtps').is_dir():
            return 2
    return 2


def profile_file(version: int) -> Path:
    """Our profile for a major version of Fast DDS."""
    return share_directory() / 'config' / f'fastdds_{version}.xml'


def _free_shared_memory() -> int:
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else 0
