"""What all HTML reports share."""
