# SPDX-License-Identifier: Apache-2.0
"""Images of cameras, H.264 and MP4. Imports no ROS."""
