"""The Robotiq gripper, through the URCap socket or Modbus. Imports no ROS."""
