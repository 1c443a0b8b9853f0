# SPDX-License-Identifier: Apache-2.0
"""Camera sources. Imports no ROS."""
