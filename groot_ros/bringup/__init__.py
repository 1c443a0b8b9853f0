"""Which processes make a cell, and their supervisor."""
