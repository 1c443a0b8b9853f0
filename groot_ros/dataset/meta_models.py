# SPDX-License-Identifier: Apache-2.0
"""What each file of a dataset's meta/ must hold before anything of it is used; further keys are of others."""

import string
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

_TEMPLATE_FIELDS = ('chunk_index', 'file_index', 'episode_chunk', 'episode_index', 'video_key')
_MAX_COUNT = 10**9
_MAX_SIZE = 100_000


def _path_template(text: str) -> str:
    """Only the fields that LeRobot has, and no width beyond ten digits: a width is as much memory."""
    for _, name, form, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        if name not in _TEMPLATE_FIELDS or conversion or len(form.strip('d').lstrip('0')) > 1:
            raise ValueError(f'{{{name}}} is not a field of a path: use {", ".join(_TEMPLATE_FIELDS)}')
    if '\0' in text:
        raise ValueError('a path has no null bytes')
    return text


_Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
_Size = Annotated[int, Field(ge=0, le=_MAX_SIZE)]
# Of images there is a number for each channel, as (3, 1, 1).
_Numbers = float | list[float] | list[list[list[float]]]
_Template = Annotated[str, Field(max_length=1000), AfterValidator(_path_template)]


class _Meta(BaseModel):
    model_config = ConfigDict(extra='allow', strict=True, allow_inf_nan=False)


class Feature(_Meta):
    """A column: its dtype, the shape of a row's value, and what is known of a video."""

    dtype: str
    shape: list[_Size] = Field(min_length=1, max_length=10)
    info: dict[str, Any] | None = None
    video_info: dict[str, Any] | None = None


class Info(_Meta):
    """The content of meta/info.json of a LeRobot dataset."""

    codebase_version: str = ''
    fps: float | None = Field(default=None, ge=0, le=10_000)
    features: dict[str, Feature] = {}
    chunks_size: int = Field(default=1000, ge=1, le=_MAX_COUNT)
    data_path: _Template = ''
    video_path: _Template | None = ''
    total_episodes: _Count = 0
    total_frames: _Count = 0


class Place(_Meta):
    """Where a video or a text is: the name of its column, where that is not its own."""

    original_key: str = ''


class Slice(Place):
    """Some numbers of a column."""

    start: _Size
    end: _Size


class ModalityFile(_Meta):
    """The content of meta/modality.json, which only GR00T reads."""

    state: dict[str, Slice] | None = None
    action: dict[str, Slice] | None = None
    video: dict[str, Place] | None = None
    annotation: dict[str, Place] | None = None


class EpisodeRecord(_Meta):
    """A line of episodes.jsonl, or a row of the tables of v3.0."""

    episode_index: _Count
    length: _Count
    tasks: list[str] = []


class TaskRecord(_Meta):
    """A line of meta/tasks.jsonl: the number and text of a task."""

    task_index: _Count
    task: str


class EpisodeStatistics(_Meta):
    """A line of meta/episodes_stats.jsonl: the statistics of an episode."""

    episode_index: _Count
    stats: dict[str, dict[str, Any]]


class NotedAction(_Meta):
    """An action of the embodiment that the converter noted."""

    name: str
    kind: str
    pose: str = ''
    topic: str = ''
    column: str = ''


class NotedEmbodiment(_Meta):
    """What validation reads of the embodiment that the converter noted."""

    action: list[NotedAction] = []


class NotedEpisode(_Meta):
    """The source of an episode, by its checksum."""

    sha256: str


class Conversion(_Meta):
    """conversion.json, which only our converter writes."""

    embodiment: NotedEmbodiment = NotedEmbodiment()
    episodes: list[NotedEpisode] = []


class Statistics(_Meta):
    """stats.json: lists of numbers by name, for each feature, and what GR00T notes to see changes."""

    __pydantic_extra__: dict[str, dict[str, _Numbers]]

    fingerprints: Any = Field(default=None, alias='__fingerprints__')


def problem_of(model: type[BaseModel], content: Any) -> str:
    """What is wrong with a file's content, '' if nothing is."""
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = '.'.join(map(str, first['loc']))[:200] or 'the content'
        return f'{key} is missing' if first['type'] == 'missing' else f'{key} is wrong: {first["msg"]}'
    return ''
