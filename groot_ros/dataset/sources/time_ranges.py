# SPDX-License-Identifier: Apache-2.0
"""Episodes in a bag that holds several: by time ranges of a YAML file, or by our recorder's status."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from groot_ros.bags.message_types import EPISODE_STATUS_TYPE
from groot_ros.bags.reader import EpisodeBag
from groot_ros.config_files import checked, read_yaml
from groot_ros.message_fields import header_stamp_ns

_MAX_S = 1e7  # four months in one bag


@dataclass(frozen=True)
class TimeRange:
    """One episode of a bag in ns of ROS time, the end excluded; the task is empty if nobody named one."""

    start_ns: int
    end_ns: int
    task: str = ''


class _Entry(BaseModel):
    model_config = ConfigDict(extra='forbid', allow_inf_nan=False)

    bag: str
    start_s: float = Field(ge=0, le=_MAX_S)
    end_s: float = Field(le=_MAX_S)
    task: str = Field(default='', max_length=1000)

    @model_validator(mode='after')
    def _forward(self) -> '_Entry':
        if self.end_s <= self.start_s:
            raise ValueError(f'end_s {self.end_s:g} is not after start_s {self.start_s:g}')
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra='forbid', allow_inf_nan=False)

    ranges: list[_Entry] = Field(min_length=1)


@dataclass(frozen=True)
class RangeEntry:
    """A range of the YAML file: seconds since the first message of the bag whose folder has this name."""

    bag: str
    start_s: float
    end_s: float
    task: str

    def in_bag(self, bag: EpisodeBag) -> TimeRange:
        """Returns the range in ROS time."""
        return TimeRange(
            bag.start_ns + round(self.start_s * 1e9), bag.start_ns + round(self.end_s * 1e9), self.task
        )


def load_ranges(path: Path) -> list[RangeEntry]:
    """Returns the ranges of a YAML file: `ranges: [{bag: session_1, start_s: 2, end_s: 14.5, task: ...}]`.

    Raises GrootRosError naming what is wrong.
    """
    entries = checked(
        _File, read_yaml(path, 'The file of time ranges'), f'The file of time ranges {path}'
    ).ranges
    return [RangeEntry(**entry.model_dump()) for entry in entries]


def recorded_time_ranges(bag: EpisodeBag) -> list[TimeRange]:
    """Returns the episodes of our recorder in a bag that another recorder wrote meanwhile.

    The list is empty if the bag has no status of our recorder.
    """
    topics = {topic: msgtype for topic, msgtype in bag.types.items() if msgtype == EPISODE_STATUS_TYPE}
    if bag.has_rows or len(topics) != 1:
        return []
    found = []
    start_ns = 0
    task = ''
    for message in bag.messages_of_topic(next(iter(topics))):
        status = message.decode()
        stamp_ns = header_stamp_ns(status)
        if start_ns and status.state != status.RECORDING:
            found.append(TimeRange(start_ns, stamp_ns, task))
            start_ns = 0
        elif not start_ns and status.state == status.RECORDING:
            start_ns = stamp_ns
            task = status.task
    return [*found, TimeRange(start_ns, bag.end_ns, task)] if start_ns else found
