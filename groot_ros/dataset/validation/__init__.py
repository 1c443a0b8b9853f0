# SPDX-License-Identifier: Apache-2.0
"""Checks whether a dataset is complete, well-formed and fit for training; used by `groot-ros validate`."""
