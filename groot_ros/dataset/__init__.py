# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets in the form that GR00T reads: writing, statistics, conversion, validation. Imports no ROS."""
