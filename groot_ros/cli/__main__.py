# SPDX-License-Identifier: Apache-2.0
"""Runs the command as `python -m groot_ros.cli`."""

import sys

from groot_ros.cli.main import main

sys.exit(main())
