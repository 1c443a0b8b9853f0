# SPDX-License-Identifier: Apache-2.0
"""The simulated cell in made-up time: faster than real time, without ROS, sockets and processes.

Demonstrations are recorded with it, and policies are tested in closed loop.
"""
