"""The command `groot-ros`."""
