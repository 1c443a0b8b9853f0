"""What can be converted."""
