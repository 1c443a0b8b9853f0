# SPDX-License-Identifier: Apache-2.0
"""Parameters of our nodes: default, description and range, written out or taken from a settings dataclass."""

from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter: its default, what it means, and its inclusive range if it is a number.

    A parameter that `may_change` can be set while the node runs; all others are read when it starts.
    """

    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    may_change: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows. None is read-only: a node's own dump can be loaded again."""
        when = 'can be set while the node runs' if self.may_change else 'is read when the node starts'
        descriptor = ParameterDescriptor(description=self.description, additional_constraints=when)
        if self.minimum is None or self.maximum is None:
            return descriptor
        if isinstance(self.default, int):
            descriptor.integer_range = [IntegerRange(from_value=self.minimum, to_value=self.maximum)]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=self.minimum, to_value=self.maximum)
            ]
        return descriptor


def specs_from(*settings: type) -> dict[str, ParameterSpec]:
    """The parameters of settings dataclasses: one for each field made by `groot_ros.settings.setting`."""
    return {
        item.name: ParameterSpec(
            _parameter_value(_default(item)),
            item.metadata['description'],
            item.metadata.get('minimum'),
            item.metadata.get('maximum'),
        )
        for cls in settings
        for item in fields(cls)
        if 'description' in item.metadata
    }


def settings_from(cls: type, values: dict[str, Any], **others: Any) -> Any:
    """An instance of a settings dataclass, filled from parameters; `others` are its further fields."""
    chosen = {
        item.name: _setting_value(values[item.name], _default(item))
        for item in fields(cls)
        if 'description' in item.metadata and item.name not in others
    }
    return cls(**chosen, **others)


def _default(item: Field) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _parameter_value(value: Any) -> Any:
    """ROS parameters have lists, but neither arrays nor tuples."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _setting_value(value: Any, default: Any) -> Any:
    """The value of a parameter in the type of the setting's default."""
    if isinstance(default, np.ndarray):
        return np.array(value, dtype=default.dtype)
    if isinstance(default, list | tuple):
        return type(default)(value)
    return value
