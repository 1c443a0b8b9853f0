"""Errors that a person can act on: one sentence that names the thing and the mending."""


class GrootRosError(Exception):
    """A fault of input, files or devices; the command line prints its text and exits with 1."""
