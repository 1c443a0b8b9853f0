# SPDX-License-Identifier: Apache-2.0
"""Rows of an embodiment: states and commands sampled at ticks, and actions made from them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groot_ros.embodiment import ACTION_9D, STATE_9D, ActionField, Embodiment, TopicField
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array, continuous_signs, deltas_between, pose_to_eef_9d
from groot_ros.message_fields import header_stamp_ns, pose_from_msg
from groot_ros.sampling.stream import Stream, to_array


@dataclass
class TickSample:
    """What is known at a tick: state (D,), commands (C,), and the age in s of each state field (F,)."""

    tick_ns: int
    state: Array
    commands: Array
    ages_s: Array


@dataclass
class RowTable:
    """n rows: ticks (n,), states (n, D), actions (n, A) and ages (n, F).

    `more` holds further columns (n, ...) by their name in the dataset.
    """

    ticks_ns: np.ndarray
    states: Array
    actions: Array
    ages_s: Array
    more: dict[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, chosen: slice) -> 'RowTable':
        """Returns the rows of a slice as views; the arrays are not copied."""
        more = {name: values[chosen] for name, values in self.more.items()}
        return RowTable(
            self.ticks_ns[chosen], self.states[chosen], self.actions[chosen], self.ages_s[chosen], more
        )


class MissingSampleError(GrootRosError):
    """A stream has no measurement near enough to a tick."""


class RowSampler:
    """Puts the messages of each topic into one stream per field, and samples all streams at ticks."""

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self._state = [(field, _make_stream(field)) for field in embodiment.state]
        self._commands = [(field, _make_stream(field)) for _, field, _ in embodiment.commands]
        self._by_topic: dict[str, list[tuple[TopicField, Stream]]] = {}
        for topic_field, stream in self.sources():
            self._by_topic.setdefault(topic_field.topic, []).append((topic_field, stream))

    def add(self, topic: str, message: Any) -> None:
        """Takes a decoded message of one of `embodiment.sampled_topics`.

        Raises GrootRosError if a field is missing.
        """
        stamp_ns = header_stamp_ns(message)
        for topic_field, stream in self._by_topic[topic]:
            if matches_source(message, topic_field):
                stream.append(stamp_ns, extract_field(message, topic_field))

    def sources(self) -> list[tuple[TopicField, Stream]]:
        """Each sampled field and its stream: the state, then the commands."""
        return [*self._state, *self._commands]

    def starts_before(self, tick_ns: int) -> bool:
        """Whether every field has a measurement at or before the tick."""
        return all(stream.starts_before(tick_ns) for _, stream in self.sources())

    def extends_past(self, tick_ns: int) -> bool:
        """Whether every field has a measurement at or after the tick, so that its sample is final."""
        return all(stream.extends_past(tick_ns) for _, stream in self.sources())

    def missing_topics(self) -> list[str]:
        """Topics, each with its field, that have given nothing so far."""
        return [
            f'{topic_field.topic} ({topic_field.field})'
            for topic_field, stream in self.sources()
            if not stream.extends_past(0)
        ]

    @property
    def regressions(self) -> int:
        """Measurements that were left out because their stamps went back."""
        return sum(stream.regressions for _, stream in self.sources())

    def sample(self, tick_ns: int) -> TickSample:
        """State (D,), commands (C,) and ages (F,) at a tick.

        Raises MissingSampleError for a state that is missing or older than `max_age_s` of the embodiment, and
        for a command that was not sent yet.
        """
        values = []
        ages_s = []
        for topic_field, stream in self._state:
            sample = stream.sample(tick_ns)
            if sample is None or sample.age_ns > self.embodiment.max_age_s * 1e9:
                age_ns = sample.age_ns if sample else None
                raise MissingSampleError(_describe_gap(topic_field, tick_ns, age_ns))
            values.append(sample.value)
            ages_s.append(sample.age_ns / 1e9)
        commands = [np.zeros(0)]
        for topic_field, stream in self._commands:
            held = stream.sample(tick_ns)
            if held is None:
                raise MissingSampleError(_describe_gap(topic_field, tick_ns, None))
            commands.append(held.value)
        return TickSample(tick_ns, np.concatenate(values), np.concatenate(commands), np.array(ages_s))

    def sample_all(self, ticks_ns: list[int]) -> list[TickSample]:
        """State and commands at many ticks, equal to the bit to `sample` at each.

        Raises MissingSampleError as `sample` does.
        """
        ticks = np.array(ticks_ns, np.int64)
        found = [stream.sample_all(ticks) for _, stream in self.sources()]
        complete = [entry for entry in found if entry is not None]
        fields = len(self._state)
        ages_ns = np.stack([ages for _, ages in complete[:fields]], axis=1) if complete else np.zeros((0, 0))
        if len(complete) < len(found) or np.max(ages_ns) > self.embodiment.max_age_s * 1e9:
            # One by one: that names the stream and the tick in its error.
            return [self.sample(tick_ns) for tick_ns in ticks_ns]
        states = np.hstack([values for values, _ in complete[:fields]])
        no_command = np.zeros((len(ticks), 0))
        commands = np.hstack([no_command, *(values for values, _ in complete[fields:])])
        return [TickSample(*row) for row in zip(ticks_ns, states, commands, ages_ns / 1e9, strict=True)]

    def drop_before(self, tick_ns: int) -> None:
        """Drops measurements that no tick from `tick_ns` on needs."""
        for _, stream in self.sources():
            stream.drop_before(tick_ns)


def build_rows(embodiment: Embodiment, samples: list[TickSample]) -> RowTable:
    """n rows from n + 1 samples: the last sample only ends the last action.

    The `command` of a row is the one in force at the next tick. Raises GrootRosError for fewer than two
    samples.
    """
    if len(samples) < 2:
        raise GrootRosError(f'{len(samples)} samples make no row: at least two are needed.')
    states = np.array([sample.state for sample in samples])
    commands = np.array([sample.commands for sample in samples])
    ticks_ns = np.array([sample.tick_ns for sample in samples[:-1]])
    ages_s = np.array([sample.ages_s for sample in samples[:-1]])
    return rows_from_states(embodiment, states, commands, commands[1:], ticks_ns, ages_s)


def rows_from_states(
    embodiment: Embodiment, states: Array, commands: Array, given: Array, ticks_ns: np.ndarray, ages_s: Array
) -> RowTable:
    """n rows from states (n + 1, D) and commands (n + 1, C); differences are from each tick to the next.

    `given` (n, C) holds the commands that each row stores as its action. Signs of quaternions are made
    continuous.
    """
    states = states.copy()
    for quaternion in embodiment.quaternion_slices:
        states[:, quaternion] = continuous_signs(states[:, quaternion])
    slices = {action.name: chosen for action, _, chosen in embodiment.commands}
    columns = []
    for action in embodiment.action:
        if action.is_derived:
            poses = _poses_of(embodiment, action, states, commands, slices)
            columns.append(_delta_column(action, poses))
        else:
            columns.append(given[:, slices[action.name]])
    more = _eef_9d(embodiment, states, commands)
    return RowTable(ticks_ns, states[:-1], np.hstack(columns), ages_s, more)


def extract_field(message: Any, topic_field: TopicField) -> Array:
    """The numbers (size,) of a field of a message, scaled.

    They are joints by name, a pose as x y z and quaternion x y z w, or one or several numbers. Raises
    GrootRosError if the message has no such joints, or another count of numbers.
    """
    if topic_field.joints:
        numbers = _extract_joints(message, topic_field)
    elif topic_field.field == 'pose':
        numbers = pose_from_msg(message)
    else:
        numbers = _extract_numbers(message, topic_field)
    return apply_scale(numbers, topic_field)


def apply_scale(values: Array, topic_field: TopicField) -> Array:
    """Numbers of any shape after the field's `scale` and `offset`: values * scale + offset."""
    if topic_field.scale == 1.0 and topic_field.offset == 0.0:
        return values
    return values * topic_field.scale + topic_field.offset


def matches_source(message: Any, topic_field: TopicField) -> bool:
    """Whether a message has any of a field's joints: arm and gripper may share a topic."""
    return not topic_field.joints or not set(topic_field.joints).isdisjoint(message.name)


def _extract_joints(message: Any, topic_field: TopicField) -> Array:
    values = getattr(message, topic_field.field)
    names = list(message.name)
    missing = [joint for joint in topic_field.joints if joint not in names]
    if missing or len(values) != len(names):
        joints = ', '.join(missing) or 'its joints'
        raise GrootRosError(
            f'{topic_field.topic} has no {topic_field.field} of {joints}; it names {", ".join(names)}.'
        )
    return np.array([values[names.index(joint)] for joint in topic_field.joints], float)


def _extract_numbers(message: Any, topic_field: TopicField) -> Array:
    value = message
    for name in topic_field.field.split('.'):
        value = getattr(value, name)
    numbers = to_array(value)
    if topic_field.indices:
        numbers = numbers[[index for index in topic_field.indices if index < len(numbers)]]
    if len(numbers) != topic_field.size:
        raise GrootRosError(
            f'{topic_field.topic} has {len(numbers)} numbers in {topic_field.field} '
            f'where the embodiment says {topic_field.size}: correct `size` or `indices` in the embodiment.'
        )
    return numbers


def _make_stream(topic_field: TopicField) -> Stream:
    return Stream(topic_field.sample, latency_ns=round(topic_field.obs_latency_s * 1e9))


def _poses_of(
    embodiment: Embodiment, action: ActionField, states: Array, commands: Array, slices: dict[str, slice]
) -> Array:
    """The poses (n + 1, 7) whose differences an action is: its own target poses, or a pose of the state."""
    if action.name in slices:
        return commands[:, slices[action.name]]
    return states[:, embodiment.state_slices[action.pose]]


def _delta_column(action: ActionField, poses: Array) -> Array:
    deltas = deltas_between(poses)
    return deltas[:, :3] if action.kind == 'delta_position' else deltas[:, 3:]


def _eef_9d(embodiment: Embodiment, states: Array, commands: Array) -> dict[str, Array]:
    """The pose of each row, and the one that it leads to, as GR00T's XYZ_ROT6D."""
    if not embodiment.eef_9d:
        return {}
    poses = states[:, embodiment.state_slices[embodiment.eef_9d]]
    targets = poses
    for action, _, chosen in embodiment.commands:
        if action.kind == 'delta_position':
            targets = commands[:, chosen]
            break
    return {STATE_9D: pose_to_eef_9d(poses[:-1]), ACTION_9D: pose_to_eef_9d(targets[1:])}


def _describe_gap(topic_field: TopicField, tick_ns: int, age_ns: int | None) -> str:
    near = 'nothing yet' if age_ns is None else f'nothing nearer than {age_ns / 1e6:.0f} ms'
    return (
        f'{topic_field.topic} has {near} at the tick {tick_ns / 1e9:.3f} s: '
        'is its driver running, and are its stamps in ROS time?'
    )
