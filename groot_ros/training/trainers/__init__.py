# SPDX-License-Identifier: Apache-2.0
"""The table of trainers, one module each.

A trainer's module has `command(job, probe)`, which returns a `TrainerCommand`, and `TRAINER`, what the checks
must know of it. A new trainer is its module, one line here, and a preset that names it.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from groot_ros.errors import choose


@dataclass(frozen=True)
class TrainerInfo:
    """What a trainer needs, for the checks before a run.

    `versions` maps packages to the version that must be installed, as a specifier such as '==4.57.3';
    `python` is such a specifier for the interpreter. `gr00t_version` is empty for other models than GR00T.
    `gated` names a model on the Hugging Face hub whose licence must be accepted. An empty `tags` allows all.
    `can_hold_out` says whether episodes can be left out.
    """

    label: str
    package: str
    python: str
    versions: dict[str, str]
    dataset_version: str
    gr00t_version: str = ''
    gated: str = ''
    tags: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    has_lora: bool = False
    ignored_options: tuple[str, ...] = ()
    can_hold_out: bool = False


_MODULES = {
    'gr00t_n1.5': 'groot_ros.training.trainers.gr00t_n1_5',
    'gr00t_n1.6': 'groot_ros.training.trainers.gr00t_n1_6',
    'gr00t_n1.7': 'groot_ros.training.trainers.gr00t_n1_7',
    'small': 'groot_ros.training.trainers.small',
    'lerobot': 'groot_ros.training.trainers.lerobot',
}
TRAINER_NAMES = tuple(_MODULES)


def load_trainer(name: str) -> ModuleType:
    """The module of a trainer. Raises GrootRosError, which names them all, if there is none of this name."""
    return import_module(_MODULES[choose('trainer', name, _MODULES)])
