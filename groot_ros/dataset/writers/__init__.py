# SPDX-License-Identifier: Apache-2.0
"""Writers of LeRobot datasets. A new one is a subclass of DatasetWriter and a line in this table."""

from groot_ros.dataset.writers.dataset_writer import DatasetWriter
from groot_ros.dataset.writers.lerobot_v2 import LeRobotV2Writer
from groot_ros.dataset.writers.lerobot_v3 import LeRobotV3Writer

WRITERS: dict[str, type[DatasetWriter]] = {'v2.1': LeRobotV2Writer, 'v3.0': LeRobotV3Writer}
