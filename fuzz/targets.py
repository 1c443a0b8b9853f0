# SPDX-License-Identifier: Apache-2.0
"""The one table of fuzz targets, and how many of 100 cases each gets."""

from fuzz.bags import ConvertBag, InspectBag, RecoverBag
from fuzz.devices import Devices
from fuzz.messages import WireClient, WireServer
from fuzz.settings import CheckpointFiles, EmbodimentFile, SmallFiles
from fuzz.tables import Hdf5, LeRobot
from fuzz.target import Target
from fuzz.video import Videos

TARGETS: dict[str, tuple[Target, int]] = {
    target.name: (target, share)
    for target, share in (
        (ConvertBag(), 15),
        (InspectBag(), 10),
        (RecoverBag(), 10),
        (Hdf5(), 8),
        (LeRobot(), 10),
        (EmbodimentFile(), 8),
        (SmallFiles(), 4),
        (CheckpointFiles(), 6),
        (WireServer(), 4),
        (WireClient(), 8),
        (Videos(), 4),
        (Devices(), 4),
    )
}
