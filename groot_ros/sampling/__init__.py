# SPDX-License-Identifier: Apache-2.0
"""Sampling of streams at ticks, and rows made from the samples. Imports no ROS.

The recorder, the converter and the policy server share this code, so that their rows agree to the bit.
"""
