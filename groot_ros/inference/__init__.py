# SPDX-License-Identifier: Apache-2.0
"""GR00T's inference protocol at both ends, and the model processes behind it. Imports no ROS."""
