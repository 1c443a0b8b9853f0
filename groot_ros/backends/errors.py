"""What a backend tells the person who starts it."""

from groot_ros.errors import GrootRosError


class BackendError(GrootRosError):
    """A checkpoint or a library that does not fit; the text says which and how to mend it."""
