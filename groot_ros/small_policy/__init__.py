# SPDX-License-Identifier: Apache-2.0
"""The small policy: a flow-matching transformer that trains on one dataset in minutes, without pretrained weights.

`network.py`, `training_loop.py` and `checkpoint.py` need torch; the other files need numpy and scipy only.
"""
