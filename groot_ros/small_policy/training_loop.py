# SPDX-License-Identifier: Apache-2.0
"""Trains the small policy on a dataset in memory; can be interrupted and resumed at any step."""

import math
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from groot_ros.errors import GrootRosError
from groot_ros.small_policy.checkpoint import load_tensors, save_checkpoint, save_tensors
from groot_ros.small_policy.episodes import TrainingData
from groot_ros.small_policy.network import SmallNetwork
from groot_ros.training.launcher import count_parameters, peak_memory_gb, report

RESUME_FILE = 'resume.safetensors'
_REPORT_STEPS = 20
# In pixels of the network's images.
_MAX_SHIFT = 2
_COLOUR_JITTER = 0.1
_EMA_POWER = 0.75
_MAX_EMA = 0.9999
_MAX_GRADIENT = 1.0
# Times near the noise are drawn more often (GR00T's distribution): there the motion is chosen.
_TIME_POWER = 1 / 1.5


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast is learned. An empty device is the GPU if there is one, else the CPU."""

    output: Path
    steps: int
    batch_size: int
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    warmup_ratio: float = 0.05
    save_steps: int = 1000
    keep_checkpoints: int = 5
    seed: int = 0
    device: str = ''
    resume: bool = False


class Training:
    """One run. Raises GrootRosError if the loss is not a number, or if it cannot be resumed."""

    def __init__(self, data: TrainingData, settings: LoopSettings) -> None:
        self._settings = settings
        self._spec = data.spec
        self._device = torch.device(settings.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.manual_seed(settings.seed)
        self._network = SmallNetwork(data.spec).to(self._device)
        self._average = {name: value.clone() for name, value in self._network.state_dict().items()}
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._images = {name: self._put(images) for name, images in data.images.items()}
        self._states = self._put(data.states).float()
        self._chunks = self._put(data.chunks).float()
        self._texts = self._put(data.text_table[data.texts]).float()
        self._weights = torch.from_numpy(data.weights)
        self._interrupted = False
        self.step = 0
        self.loss = math.nan
        if settings.resume:
            self._load()

    def run(self) -> None:
        """Trains to the last step, or to an interrupt, and saves a checkpoint in both cases."""
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)
        report('begin', step=self.step, parameters=count_parameters(self._network), frozen='')
        first = self.step
        began_s = time.monotonic()
        while self.step < self._settings.steps and not self._interrupted:
            loss = self._learn()
            self.step += 1
            if self.step % _REPORT_STEPS == 0 or self.step == self._settings.steps:
                self._check(loss)
                samples = (self.step - first) * self._settings.batch_size
                self._report(samples / (time.monotonic() - began_s))
            if self.step % self._settings.save_steps == 0:
                self._save(loss)
        if self.step > first and self.step % self._settings.save_steps:
            self._save(loss)
        report('end', step=self.step, frozen='', memory_gb=peak_memory_gb())

    def _learn(self) -> Tensor:
        """One change of the weights; returns the loss, which is still on the device."""
        # A generator for each step: a resumed run draws what an uninterrupted one would have drawn.
        generator = torch.Generator().manual_seed(self._settings.seed * 1_000_003 + self.step)
        rows = torch.multinomial(self._weights, self._settings.batch_size, True, generator=generator)
        rows = rows.to(self._device)
        images = {name: self._augmented(all_of[rows], generator) for name, all_of in self._images.items()}
        chunk = self._chunks[rows]
        noise = torch.randn(chunk.shape, generator=generator).to(self._device)
        flow_time = 1 - torch.rand(len(rows), generator=generator).to(self._device) ** _TIME_POWER
        for group in self._optimizer.param_groups:
            group['lr'] = self._learning_rate()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == 'cuda'):
            loss = self._network.loss(images, self._states[rows], self._texts[rows], chunk, noise, flow_time)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), _MAX_GRADIENT)
        self._optimizer.step()
        self._update_average()
        return loss.detach()

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (b, height, width, 3) shifted by some pixels and slightly brighter or darker."""
        count, height, width = images.shape[:3]
        shifts = torch.randint(-_MAX_SHIFT, _MAX_SHIFT + 1, (2, count, 1), generator=generator)
        rows = (torch.arange(height) + shifts[0]).clamp(0, height - 1).to(self._device)
        columns = (torch.arange(width) + shifts[1]).clamp(0, width - 1).to(self._device)
        picked = torch.arange(count, device=self._device)[:, None, None]
        shifted = images[picked, rows[:, :, None], columns[:, None, :]]
        jitter = 1 + _COLOUR_JITTER * (2 * torch.rand(count, 3, 1, 1, generator=generator) - 1)
        return as_input(shifted) * jitter.to(self._device)

    def _learning_rate(self) -> float:
        """Rises to its value, and falls to 0 as a cosine."""
        settings = self._settings
        warmup = max(settings.warmup_ratio * settings.steps, 1.0)
        share = self.step / settings.steps
        rise = min((self.step + 1) / warmup, 1.0)
        return settings.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * share))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(1 - (1 + self.step) ** -_EMA_POWER, _MAX_EMA)
        now = self._network.state_dict()
        torch._foreach_lerp_([self._average[name] for name in now], list(now.values()), 1 - decay)

    def _check(self, loss: Tensor) -> None:
        self.loss = float(loss)
        if not math.isfinite(self.loss):
            report('not_finite', step=self.step)
            raise GrootRosError(
                f'The loss is not a number at step {self.step}: train with a smaller --learning-rate. '
                'The last checkpoint is kept.'
            )

    def _report(self, samples_per_s: float) -> None:
        report(
            'step',
            step=self.step,
            loss=self.loss,
            samples_per_s=samples_per_s,
            waiting_share=0.0,  # all data are on the device before the first step
            memory_gb=peak_memory_gb(),
        )

    def _save(self, loss: Tensor) -> None:
        self._check(loss)
        output = self._settings.output
        save_checkpoint(output / 'checkpoints' / f'step_{self.step:07}', self._spec, self._average)
        save_checkpoint(output, self._spec, self._average)
        save_tensors(output / RESUME_FILE, self._resumable())
        for old in sorted((output / 'checkpoints').glob('step_*'))[: -self._settings.keep_checkpoints]:
            shutil.rmtree(old)
        report('saved', step=self.step)

    def _resumable(self) -> dict[str, Tensor]:
        """All that is needed to go on: step, weights, their average, and the optimizer's moments."""
        tensors = {'step': torch.tensor(self.step)}
        for name, value in self._network.state_dict().items():
            tensors[f'network.{name}'] = value
            tensors[f'average.{name}'] = self._average[name]
        for number, moments in self._optimizer.state_dict()['state'].items():
            for name, value in moments.items():
                tensors[f'optimizer.{number}.{name}'] = value
        return tensors

    def _load(self) -> None:
        path = self._settings.output / RESUME_FILE
        tensors = load_tensors(path)
        try:
            self.step = int(tensors.pop('step'))
            self._network.load_state_dict(_part(tensors, 'network.'))
            for name, value in _part(tensors, 'average.').items():
                self._average[name].copy_(value)
            self._load_moments(_part(tensors, 'optimizer.'))
        except (KeyError, RuntimeError, ValueError) as error:
            raise GrootRosError(
                f'{path} is of another network: start a new run in another --output.'
            ) from error

    def _load_moments(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            number, moment = name.split('.')
            state.setdefault(int(number), {})[moment] = value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), 'state': state})

    def _put(self, values) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    def _interrupt(self, number, frame) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        report('interrupted')


def as_input(images: Tensor) -> Tensor:
    """Images (b, height, width, 3) uint8 as (b, 3, height, width) from 0 to 1."""
    return images.movedim(-1, 1).float() / 255


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
