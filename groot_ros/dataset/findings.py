"""What a check found: shared by the modules that validate."""

from dataclasses import dataclass

ERROR, WARNING = 'error', 'warning'


@dataclass
class Finding:
    """One fault: where it is, what it is, and how it is mended."""

    severity: str
    file: str
    problem: str
    mending: str
    row: int | None = None

    def __str__(self) -> str:
        place = self.file if self.row is None else f'{self.file} row {self.row}'
        return f'{self.severity}: {place}: {self.problem}; {self.mending}'
