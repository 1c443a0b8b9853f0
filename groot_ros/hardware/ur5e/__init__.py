"""The UR5e: processes that own ur_rtde, dashboard, modes. Imports no ROS."""
