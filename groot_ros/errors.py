# SPDX-License-Identifier: Apache-2.0
"""Errors that a person can act on: one sentence that names the thing and says what to do."""


class GrootRosError(Exception):
    """A fault of input, files or devices; the command line prints its text and exits with 1."""


class BackendError(GrootRosError):
    """A model backend cannot load or run its model; the text goes to the person who started it."""


class PolicyError(GrootRosError):
    """A policy cannot answer; the text says why and what to do."""
