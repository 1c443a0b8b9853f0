# SPDX-License-Identifier: Apache-2.0
"""A preset of fine-tuning: one YAML file in config/finetune that says what is trained, and on which GPU."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from groot_ros.config_files import checked, read_yaml
from groot_ros.errors import choose
from groot_ros.resources import share_directory


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class TrainedParts(_Strict):
    """Which parts of a GR00T model learn; the others stay as they were pretrained."""

    llm: bool = False
    visual: bool = False
    projector: bool = True
    diffusion_model: bool = True


class Lora(_Strict):
    """Low-rank adapters instead of whole weights. A rank of 0 is none; only N1.5's trainer has them."""

    rank: int = Field(default=0, ge=0)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class Preset(_Strict):
    """What one YAML file of config/finetune holds.

    `batch_size` is the number of samples per GPU and step, `accumulation` the number of steps whose gradients
    are added up before the weights change. `gpu_memory_gb` is the memory that each GPU must have, and
    `checkpoint_gb` the size of one checkpoint on disk. `trainer_options` go to the trainer as they are.
    """

    description: str
    source: str
    trainer: str
    base_model: str = ''
    gpus: int = Field(default=1, ge=0)
    gpu_memory_gb: float = Field(default=0.0, ge=0)
    checkpoint_gb: float = Field(default=0.0, ge=0)
    embodiment_tag: str = 'new_embodiment'
    data_config: str = ''
    relative: bool = False
    horizon: int = Field(default=16, ge=1)
    parts: TrainedParts = TrainedParts()
    lora: Lora = Lora()
    batch_size: int = Field(ge=1)
    accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    steps: int = Field(default=10000, ge=1)
    save_steps: int = Field(default=1000, ge=1)
    keep_checkpoints: int = Field(default=5, ge=1)
    loader_workers: int = Field(default=4, ge=0)
    optimizer: Literal['adamw', 'adamw_8bit'] = 'adamw'
    gradient_checkpointing: bool = False
    expandable_segments: bool = False
    trainer_options: dict[str, str | int | float | bool] = Field(default_factory=dict)

    @property
    def samples_per_update(self) -> int:
        """How many samples one change of the weights is made from."""
        return self.batch_size * self.accumulation * max(self.gpus, 1)


def preset_folder() -> Path:
    """The folder of the presets."""
    return share_directory() / 'config' / 'finetune'


def preset_names() -> list[str]:
    """The names of all presets, sorted."""
    return sorted(path.stem for path in preset_folder().glob('*.yaml'))


def load_preset(name_or_path: str, **changes: Any) -> Preset:
    """A preset by its name, or by the path of a YAML file; `changes` that are not None replace its values.

    Raises GrootRosError that names the file and the key that is wrong.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix not in ('.yaml', '.yml'):
        choose('preset', name_or_path, preset_names(), 'or the path of a YAML file')
        path = preset_folder() / f'{name_or_path}.yaml'
    values = read_yaml(path, 'The preset')
    if isinstance(values, dict):
        values |= {key: value for key, value in changes.items() if value is not None}
    return checked(Preset, values, f'The preset {path}')
