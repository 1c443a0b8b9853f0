# SPDX-License-Identifier: Apache-2.0
"""Which processes make a cell, and their supervisor."""
