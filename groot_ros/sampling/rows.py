# SPDX-License-Identifier: Apache-2.0
"""RowTable of an embodiment: states sampled at ticks, and actions made of successive states. Used wherever rows are made."""

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
    """n rows: ticks (n,), states (n, D), actions (n, A), ages (n, F), and further columns (n, ...) by the name of their feature."""

    ticks_ns: np.ndarray
    states: Array
    actions: Array
    ages_s: Array
    more: dict[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, part: slice) -> 'RowTable':
        """Some of the rows."""
        more = {name: values[part] for name, values in self.more.items()}
        return RowTable(self.ticks_ns[part], self.states[part], self.actions[part], self.ages_s[part], more)


class MissingSampleError(GrootRosError):
    """A stream has nothing near enough to a tick."""


class RowSampler:
    """Feeds messages into one stream a field and samples them at ticks."""

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self._state = [(field, _stream(field)) for field in embodiment.state]
        self._commands = [(source, _stream(source)) for _, source, _ in embodiment.commands]
        self._by_topic: dict[str, list[tuple[TopicField, Stream]]] = {}
        for source, stream in [*self._state, *self._commands]:
            self._by_topic.setdefault(source.topic, []).append((source, stream))

    def add(self, topic: str, message: Any) -> None:
        """Takes a decoded message of one of embodiment.sampled_topics."""
        stamp_ns = header_stamp_ns(message)
        for source, stream in self._by_topic[topic]:
            if matches_source(message, source):
                stream.append(stamp_ns, extract_field(message, source))

    def sources(self) -> list[tuple[TopicField, Stream]]:
        """Each source and its stream, for filling them at once."""
        return [*self._state, *self._commands]

    def starts_before(self, tick_ns: int) -> bool:
        """Whether every field has a measurement at or before the tick."""
        return all(stream.starts_before(tick_ns) for _, stream in [*self._state, *self._commands])

    def extends_past(self, tick_ns: int) -> bool:
        """Whether every field has a measurement at or after the tick."""
        return all(stream.extends_past(tick_ns) for _, stream in [*self._state, *self._commands])

    def missing_topics(self) -> list[str]:
        """Topics, with their fields, that have given nothing so far."""
        return [
            f'{source.topic} ({source.field})'
            for source, stream in [*self._state, *self._commands]
            if not stream.extends_past(0)
        ]

    @property
    def regressions(self) -> int:
        """Measurements left out because their stamps went back."""
        return sum(stream.regressions for _, stream in [*self._state, *self._commands])

    def sample(self, tick_ns: int) -> TickSample:
        """State and commands at a tick. Raises MissingSampleError where a state is older than max_age_s."""
        values, ages = [], []
        for source, stream in self._state:
            sample = stream.sample(tick_ns)
            if sample is None or sample.age_ns > self.embodiment.max_age_s * 1e9:
                raise MissingSampleError(_too_old(source, tick_ns, sample.age_ns if sample else None))
            values.append(sample.value)
            ages.append(sample.age_ns / 1e9)
        commands = []
        for source, stream in self._commands:
            if (held := stream.sample(tick_ns)) is None:
                raise MissingSampleError(_too_old(source, tick_ns, None))
            commands.append(held.value)
        return TickSample(
            tick_ns, np.concatenate(values), np.concatenate([*commands, np.zeros(0)]), np.array(ages)
        )

    def sample_all(self, ticks_ns: list[int]) -> list[TickSample]:
        """The same at many ticks."""
        ticks = np.array(ticks_ns, np.int64)
        found = [stream.sample_all(ticks) for _, stream in [*self._state, *self._commands]]
        ages = [ages_ns for _, ages_ns in filter(None, found[: len(self._state)])]
        if None in found or np.max(ages) > self.embodiment.max_age_s * 1e9:
            return [self.sample(tick_ns) for tick_ns in ticks_ns]  # which names the stream and the tick
        states = np.hstack([values for values, _ in filter(None, found[: len(self._state)])])
        commands = np.hstack(
            [*(values for values, _ in filter(None, found[len(self._state) :])), np.zeros((len(ticks), 0))]
        )
        ages_s = np.stack(ages, axis=1) / 1e9
        return [TickSample(*row) for row in zip(ticks_ns, states, commands, ages_s, strict=True)]

    def drop_before(self, tick_ns: int) -> None:
        """Drops what no later tick needs."""
        for _, stream in [*self._state, *self._commands]:
            stream.drop_before(tick_ns)


def build_rows(embodiment: Embodiment, samples: list[TickSample]) -> RowTable:
    """n rows from n + 1 samples: the last sample has no successor, so it is only the end of the last action.

    A command is that of the next tick. Raises GrootRosError for fewer than two samples.
    """
    if len(samples) < 2:
        raise GrootRosError(f'{len(samples)} samples make no row: at least two are needed.')
    states, commands = (
        np.array([sample.state for sample in samples]),
        np.array([sample.commands for sample in samples]),
    )
    ticks_ns, ages_s = (
        np.array([sample.tick_ns for sample in samples[:-1]]),
        np.array([sample.ages_s for sample in samples[:-1]]),
    )
    return rows_from_states(embodiment, states, commands, commands[1:], ticks_ns, ages_s)


def rows_from_states(
    embodiment: Embodiment, states: Array, commands: Array, given: Array, ticks_ns: np.ndarray, ages_s: Array
) -> RowTable:
    """n rows of n + 1 states and commands, where `given` (n, C) is what each row takes of its commands as they are.

    Quaternions keep their sign from row to row. Differences are from each tick to the next.
    """
    states = states.copy()
    for part in embodiment.quaternion_slices:
        states[:, part] = continuous_signs(states[:, part])
    slices = {action.name: part for action, _, part in embodiment.commands}
    columns = [_action(embodiment, action, states, commands, given, slices) for action in embodiment.action]
    return RowTable(ticks_ns, states[:-1], np.hstack(columns), ages_s, _eef_9d(embodiment, states, commands))


def extract_field(message: Any, source: TopicField) -> Array:
    """The numbers that a source takes from a message: joints by name, a pose as x y z and quaternion x y z w, or one number."""
    return apply_scale(_extract(message, source), source)


def apply_scale(values: Array, source: TopicField) -> Array:
    """What a source makes of the numbers in its messages."""
    return values if source.scale == 1.0 and source.offset == 0.0 else values * source.scale + source.offset


def matches_source(message: Any, source: TopicField) -> bool:
    """Whether a message is about a source: arm and gripper may share a topic with separate messages."""
    return not source.joints or not set(source.joints).isdisjoint(message.name)


def _extract(message: Any, source: TopicField) -> Array:
    if source.joints:
        values, names = getattr(message, source.field), list(message.name)
        missing = [joint for joint in source.joints if joint not in names]
        if missing or len(values) != len(names):
            raise GrootRosError(
                f'{source.topic} has no {source.field} of {", ".join(missing) or "its joints"}; it names {", ".join(names)}.'
            )
        return np.array([values[names.index(joint)] for joint in source.joints], float)
    if source.field == 'pose':
        return pose_from_msg(message)
    value = message
    for part in source.field.split('.'):
        value = getattr(value, part)
    numbers = to_array(value)
    if source.indices:
        numbers = numbers[[index for index in source.indices if index < len(numbers)]]
    if len(numbers) != source.size:
        found = f'{len(numbers)} numbers in {source.field} where the embodiment says {source.size}'
        raise GrootRosError(f'{source.topic} has {found}: correct `size` or `indices` in the embodiment.')
    return numbers


def _stream(source: TopicField) -> Stream:
    return Stream(source.sample, latency_ns=round(source.obs_latency_s * 1e9))


def _action(
    embodiment: Embodiment,
    action: ActionField,
    states: Array,
    commands: Array,
    given: Array,
    slices: dict[str, slice],
) -> Array:
    if not action.is_derived:
        return given[:, slices[action.name]]
    deltas = deltas_between(
        commands[:, slices[action.name]]
        if action.name in slices
        else states[:, embodiment.state_slices[action.pose]]
    )
    return deltas[:, :3] if action.kind == 'delta_position' else deltas[:, 3:]


def _eef_9d(embodiment: Embodiment, states: Array, commands: Array) -> dict[str, Array]:
    """The pose of each row and the one it leads to, as GR00T's XYZ_ROT6D."""
    if not embodiment.eef_9d:
        return {}
    poses = states[:, embodiment.state_slices[embodiment.eef_9d]]
    targets = next(
        (commands[:, part] for action, _, part in embodiment.commands if action.kind == 'delta_position'),
        poses,
    )
    return {STATE_9D: pose_to_eef_9d(poses[:-1]), ACTION_9D: pose_to_eef_9d(targets[1:])}


def _too_old(source: TopicField, tick_ns: int, age_ns: int | None) -> str:
    near = 'nothing yet' if age_ns is None else f'nothing nearer than {age_ns / 1e6:.0f} ms'
    return f'{source.topic} has {near} at the tick {tick_ns / 1e9:.3f} s: is its driver running, and are its stamps in ROS time?'
