# SPDX-License-Identifier: Apache-2.0
"""Judges episodes: what flowed, how evenly, and whether it is fit to train on. Imports no ROS."""
