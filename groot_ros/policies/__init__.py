"""Policies behind one interface: infer(observation) -> chunk, reset(), spec."""
