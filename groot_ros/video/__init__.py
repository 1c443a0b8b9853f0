# SPDX-License-Identifier: Apache-2.0
"""Images of ROS messages, H.264 and MP4. Imports no ROS."""
