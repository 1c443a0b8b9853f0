# SPDX-License-Identifier: Apache-2.0
"""Behaviour of the control script that ur_rtde uploads."""
