# SPDX-License-Identifier: Apache-2.0
"""Names and units of the numbers in a row, and how a number is written for people."""

from groot_ros.embodiment import ActionField, StateField

_POSITION = (('x', 'm'), ('y', 'm'), ('z', 'm'))
_QUATERNION = (('qx', ''), ('qy', ''), ('qz', ''), ('qw', ''))
_ROTATION = (('x', 'rad'), ('y', 'rad'), ('z', 'rad'))
_UNITS = {'position': 'rad', 'velocity': 'rad/s', 'effort': 'Nm', 'opening': '0 closed, 1 open'}


def dimensions(field: StateField | ActionField) -> tuple[tuple[str, str], ...]:
    """Name and unit of each number of a field; the unit is empty where the embodiment does not say it."""
    if isinstance(field, ActionField) and field.is_derived:
        return _POSITION if field.kind == 'delta_position' else _ROTATION
    if field.field == 'pose':
        return _POSITION + _QUATERNION
    if field.field == 'quaternion':
        return _QUATERNION
    names = [joint.removesuffix('_joint') for joint in field.joints]
    if not names:
        names = [str(number) for number in range(1, field.size + 1)] if field.size > 1 else ['']
    return tuple((name, _UNITS.get(field.field, '')) for name in names)


def with_unit(text: str, unit: str, space: str = ' ') -> str:
    """The label of an axis: the text, and its unit in brackets."""
    return f'{text}{space}[{unit}]' if unit else text


def three_digits(value: float) -> str:
    """A number with three significant digits, whole from 100 on; 0 for the rounding errors of a float."""
    if abs(value) < 1e-5:
        return '0'
    return f'{value:.0f}' if abs(value) >= 100 or float(value).is_integer() else f'{value:.3g}'
