# SPDX-License-Identifier: Apache-2.0
"""Sampling of streams at ticks and rows made of them: shared by the recorder, the converter and the policy server. Imports no ROS."""
