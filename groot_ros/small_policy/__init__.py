# SPDX-License-Identifier: Apache-2.0
"""The small policy: a flow-matching transformer that is trained from scratch on one dataset.

`network.py`, `training_loop.py` and `checkpoint.py` need torch; the other files need numpy and scipy only.
"""
