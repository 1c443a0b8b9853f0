# SPDX-License-Identifier: Apache-2.0
"""Policies with one interface (infer, reset, spec), and what runs and evaluates them. Imports no ROS."""
