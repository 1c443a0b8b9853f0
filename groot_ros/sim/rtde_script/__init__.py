"""Behaviour of the control script that ur_rtde uploads."""
