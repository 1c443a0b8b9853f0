# SPDX-License-Identifier: Apache-2.0
"""Models behind the wire, one small file each. They run in the model's own Python: numpy, msgpack, pyzmq and the model, nothing of ROS."""
