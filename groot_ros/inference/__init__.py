# SPDX-License-Identifier: Apache-2.0
"""GR00T's inference protocol, its client and server, and the processes of models. Imports no ROS."""
