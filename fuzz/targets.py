# SPDX-License-Identifier: Apache-2.0
"""The one table of fuzz targets, and how many of 100 cases each gets."""

from fuzz.bags import ConvertBag, InspectBag, RecoverBag
from fuzz.target import Target

TARGETS: dict[str, tuple[Target, int]] = {
    target.name: (target, share)
    for target, share in ((ConvertBag(), 15), (InspectBag(), 10), (RecoverBag(), 10))
}
