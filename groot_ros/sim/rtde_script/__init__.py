# SPDX-License-Identifier: Apache-2.0
"""What the numbered commands of the control script of ur_rtde do."""
