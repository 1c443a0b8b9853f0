"""Policies behind one interface: infer(observation) -> chunk, reset(), spec."""

# The token of a model server. Not an option, since everybody on the machine can read those.
TOKEN_VARIABLE = 'GROOT_ROS_API_TOKEN'
