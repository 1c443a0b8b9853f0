# SPDX-License-Identifier: Apache-2.0
"""The command `groot-ros`: one module per subcommand, each with `add_parser(commands)` and `run(options)`.

A command imports heavy and optional libraries when it runs, so that `--help` is quick and works without them.
"""
