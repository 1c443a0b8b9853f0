# SPDX-License-Identifier: Apache-2.0
"""Checks of the trainer's Python, the GPUs, the disk and the hub before training."""

import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet

from groot_ros.training.findings import TrainingProblem
from groot_ros.training.job import FinetuneJob
from groot_ros.training.preset import Preset
from groot_ros.training.probe import Probe
from groot_ros.training.trainers import TrainerInfo

_HUB = 'https://huggingface.co'
_HUB_TIMEOUT_S = 10.0
# A GPU of 24 GB reports a little less than 24 GiB.
_MEMORY_TOLERANCE = 0.96


def machine_problems(
    job: FinetuneJob,
    trainer: TrainerInfo,
    probe: Probe,
    ask_hub: 'Callable[[str], int] | None' = None,
) -> Iterator[TrainingProblem]:
    """All problems of a machine with a trainer and a preset, each in one sentence.

    `ask_hub` returns the HTTP status for a model of the Hugging Face hub, 0 if the hub is not reachable.
    """
    yield from _packages(job, trainer, probe)
    yield from _extras(job.preset, probe)
    yield from _gpus(job.preset, probe)
    yield from _driver(job.preset, probe)
    yield from _programs(trainer, probe)
    yield from _disk(job)
    yield from _hub(trainer, probe, ask_hub or hub_status)
    yield from _options(job.preset, trainer)


def _packages(job: FinetuneJob, trainer: TrainerInfo, probe: Probe) -> Iterator[TrainingProblem]:
    if not probe.packages.get(trainer.package):
        yield TrainingProblem(
            'trainer',
            f'{job.python} has no {trainer.package}: name the Python that {trainer.label} is installed in '
            'with --python.',
        )
    if probe.python not in SpecifierSet(trainer.python):
        yield TrainingProblem(
            'python', f'{trainer.label} needs Python {trainer.python}, and {job.python} is {probe.python}.'
        )
    versions = dict(trainer.versions)
    if job.preset.trainer_options.get('policy.type') == 'groot':
        # LeRobot's groot is N1.7 from 0.6 on, and N1.5 before.
        versions['lerobot'] = '>=0.6' if job.preset.horizon > 16 else versions['lerobot']
    for package, wanted in versions.items():
        installed = probe.packages.get(package, '')
        if not installed:
            yield TrainingProblem(
                'versions',
                f'{trainer.label} needs {package}: {job.python} -m pip install "{package}{wanted}"',
            )
        elif installed not in SpecifierSet(wanted):
            yield TrainingProblem(
                'versions',
                f'{trainer.label} trains with {package}{wanted}, and {installed} is installed: '
                f'{job.python} -m pip install "{package}{wanted}"',
            )
    if probe.stale_modules:
        yield TrainingProblem(
            'module-cache',
            f'{probe.stale_modules} holds model code that is older than transformers: delete the folder, '
            'it is made again.',
        )


def _extras(preset: Preset, probe: Probe) -> Iterator[TrainingProblem]:
    needed = {
        'bitsandbytes': preset.optimizer == 'adamw_8bit' and 'The 8-bit optimizer',
        'deepspeed': preset.gpus > 1 and preset.trainer.startswith('gr00t') and 'Training on several GPUs',
        'peft': preset.lora.rank > 0 and 'LoRA',
    }
    for package, purpose in needed.items():
        if purpose and not probe.packages.get(package):
            yield TrainingProblem(
                'extras', f"{purpose} needs {package} in the trainer's Python: pip install {package}"
            )


def _gpus(preset: Preset, probe: Probe) -> Iterator[TrainingProblem]:
    if preset.gpus == 0:
        return
    if not probe.gpus:
        yield TrainingProblem(
            'gpu',
            'No GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES, or train on another machine.',
        )
        return
    if len(probe.gpus) < preset.gpus:
        yield TrainingProblem(
            'gpu', f'The preset needs {preset.gpus} GPUs and {len(probe.gpus)} are visible: give --gpus.'
        )
    if len(probe.gpus) > 1 and preset.gpus == 1:
        yield TrainingProblem(
            'several-gpus',
            f'{len(probe.gpus)} GPUs are visible, and a run on one GPU fails then: choose one with '
            'CUDA_VISIBLE_DEVICES=0, or give --gpus.',
        )
    used = probe.gpus[: preset.gpus]
    smallest = min(used, key=lambda gpu: gpu.memory_gb)
    if smallest.memory_gb < preset.gpu_memory_gb * _MEMORY_TOLERANCE:
        yield TrainingProblem(
            'gpu-memory',
            f'The preset needs {preset.gpu_memory_gb:g} GB, and the {smallest.name} has '
            f'{smallest.memory_gb:.0f} GB: choose a preset for that size.',
        )
        return
    fullest = min(used, key=lambda gpu: gpu.free_gb)
    if fullest.free_gb < preset.gpu_memory_gb * _MEMORY_TOLERANCE * 0.9:
        yield TrainingProblem(
            'gpu-in-use',
            f'Only {fullest.free_gb:.0f} GB of the {fullest.name} are free, and the preset needs '
            f'{preset.gpu_memory_gb:g} GB: end the other programs that use it (nvidia-smi lists them).',
        )


def _driver(preset: Preset, probe: Probe) -> Iterator[TrainingProblem]:
    if preset.gpus == 0 or not probe.gpus:
        return
    if not probe.cuda_wheel:
        yield TrainingProblem('cuda', 'This torch was built without CUDA: install a CUDA build of torch.')
    elif probe.cuda_driver and probe.cuda_wheel[0] > probe.cuda_driver[0]:
        wheel = '.'.join(map(str, probe.cuda_wheel))
        driver = '.'.join(map(str, probe.cuda_driver))
        yield TrainingProblem(
            'cuda',
            f'torch was built for CUDA {wheel}, and the driver runs up to {driver}: update the driver, or '
            'install a torch for an older CUDA.',
        )


def _programs(trainer: TrainerInfo, probe: Probe) -> Iterator[TrainingProblem]:
    for program in trainer.programs:
        if not probe.programs.get(program):
            yield TrainingProblem(
                'programs', f'{trainer.label} needs the program {program}: sudo apt install ffmpeg'
            )


def _disk(job: FinetuneJob) -> Iterator[TrainingProblem]:
    # One more than are kept: the oldest is deleted after the newest is written.
    needed_gb = job.preset.checkpoint_gb * (job.preset.keep_checkpoints + 1)
    free_gb = shutil.disk_usage(_existing(job.output)).free / 2**30
    if free_gb < needed_gb:
        yield TrainingProblem(
            'disk',
            f'{job.output} has {free_gb:.0f} GB free, and {job.preset.keep_checkpoints} checkpoints need '
            f'{needed_gb:.0f} GB: choose another --output, or keep fewer with --keep-checkpoints.',
        )


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


def _hub(trainer: TrainerInfo, probe: Probe, ask_hub: Callable[[str], int]) -> Iterator[TrainingProblem]:
    if not trainer.gated or trainer.gated in probe.cached_models:
        return
    if not probe.has_hub_token:
        yield TrainingProblem(
            'gated-model',
            f'{trainer.label} loads {trainer.gated}, whose licence you must accept at '
            f'{_HUB}/{trainer.gated}; then run: hf auth login',
        )
        return
    status = ask_hub(trainer.gated)
    if status in (401, 403):
        yield TrainingProblem(
            'gated-model',
            f'Your Hugging Face token may not read {trainer.gated}: accept its licence at '
            f'{_HUB}/{trainer.gated}.',
        )
    elif status != 200:
        yield TrainingProblem(
            'gated-model',
            f'{trainer.gated} is not on this machine and {_HUB} is not reachable (status {status}): connect '
            'to the internet once, or copy the cache of another machine.',
        )


def hub_status(model: str) -> int:
    """The HTTP status of a model's config file with the user's token; 0 if the hub is not reachable."""
    from groot_ros.training.hub import hub_token

    request = urllib.request.Request(
        f'{_HUB}/{model}/resolve/main/config.json',
        method='HEAD',
        headers={'Authorization': f'Bearer {hub_token()}'},
    )
    try:
        with urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def _options(preset: Preset, trainer: TrainerInfo) -> Iterator[TrainingProblem]:
    if trainer.tags and preset.embodiment_tag.lower() not in trainer.tags:
        yield TrainingProblem(
            'embodiment-tag',
            f'{trainer.label} does not know the embodiment tag {preset.embodiment_tag}: use one of '
            f'{", ".join(trainer.tags)}.',
        )
    if preset.lora.rank and not trainer.has_lora:
        yield TrainingProblem(
            'ignored-option',
            f'{trainer.label} has no LoRA: set the rank of `lora` to 0, or train N1.5.',
        )
    for option in preset.trainer_options:
        if option in trainer.ignored_options:
            yield TrainingProblem(
                'ignored-option',
                f"{trainer.label} ignores {option} and takes the base checkpoint's value: remove it from "
                '`trainer_options`.',
            )
