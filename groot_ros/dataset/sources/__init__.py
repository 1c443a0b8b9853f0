# SPDX-License-Identifier: Apache-2.0
"""Sources of episodes. A new one is a file here and a line of the table in discover.py."""
