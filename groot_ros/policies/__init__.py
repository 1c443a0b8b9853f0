# SPDX-License-Identifier: Apache-2.0
"""Policies behind one interface: infer(observation) -> chunk, reset(), spec."""
