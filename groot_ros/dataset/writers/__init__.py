"""Writers of LeRobot datasets."""
