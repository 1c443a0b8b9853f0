# SPDX-License-Identifier: Apache-2.0
"""UR5e, Robotiq and ZED demonstrations for NVIDIA GR00T: record, convert, validate and run."""

from pkgutil import extend_path

# The generated messages (groot_ros.msg, groot_ros.srv) are installed in another folder of the same name.
__path__ = extend_path(__path__, __name__)
__version__ = '0.1.0'
