# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile input for the real entry points, seeded and counted: `make fuzz`."""
