# SPDX-License-Identifier: Apache-2.0
"""A MuJoCo cell behind the protocols of a UR5e, a Robotiq gripper and a camera, so that real clients run unchanged."""
