# SPDX-License-Identifier: Apache-2.0
"""The simulated cell: a UR5e, a Robotiq gripper and a camera that speak the protocols of the real devices.

Nothing outside imports it, except the node sim_cell and what is loaded by name for the simulation.
"""
