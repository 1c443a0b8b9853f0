# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: presets, the trainers' command lines, checks before the first step, and the run itself."""
