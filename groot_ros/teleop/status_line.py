# SPDX-License-Identifier: Apache-2.0
"""What an operator at a terminal sees: the table of the keys, and one line with the state of the cell."""

from dataclasses import dataclass

from groot_ros.teleop.mapping import TeleopMap


@dataclass
class CellState:
    """What the status line shows. `worst_stream` is a clause, empty if every stream flows."""

    arm: str = 'not heard'
    episode: str = ''
    recording: str = 'idle'
    rows: int = 0
    task: str = ''
    worst_stream: str = ''


def status_line(state: CellState, columns: int) -> str:
    """One line of at most `columns` characters: arm, episode, rows, worst stream and task."""
    episode = f'{state.episode or "no episode"} {state.recording}, {state.rows} rows'
    streams = state.worst_stream or 'streams flow'
    text = f'arm {state.arm} | {episode} | {streams} | task: {state.task or "none"}'
    return text if len(text) <= columns else text[: max(columns - 3, 0)] + '...'


def key_table(chosen: TeleopMap) -> list[str]:
    """The keys of a map, a line for each direction and event."""
    lines = []
    for direction, terms in chosen.axes.items():
        ends = [f'{term.axis} {"+" if term.scale > 0 else "-"}' for term in terms]
        lines.append(f'{direction:>12}  {", ".join(ends)}')
    for event, key in chosen.buttons.items():
        hold = ' (hold for 2 s)' if event == 'recover' else ''
        lines.append(f'{event:>12}  {key}{hold}')
    return [*lines, f'{"keys":>12}  ?']
