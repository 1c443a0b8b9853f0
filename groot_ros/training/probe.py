# SPDX-License-Identifier: Apache-2.0
"""What the trainer's Python and its machine have: versions, GPUs, driver, programs, model caches.

This file is run by that Python, of 3.10 or later, so it needs only the standard library there; `probe` runs
it and reads its answer. Nothing heavy is imported: the answer takes about a second.
"""

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

PACKAGES = (
    'torch', 'transformers', 'gr00t', 'lerobot', 'peft', 'deepspeed', 'bitsandbytes', 'lmdb', 'scipy',
    'tensorboard', 'torchcodec',
)  # fmt: skip
PROGRAMS = ('ffmpeg', 'ffprobe')
_TIMEOUT_S = 60.0


@dataclass
class Gpu:
    """One GPU as nvidia-smi lists it; memory in GiB."""

    name: str
    memory_gb: float
    free_gb: float


@dataclass
class Probe:
    """The answer. Versions are empty texts where a package is not installed, or a program not found.

    `cuda_wheel` is the CUDA version that torch was built for, `cuda_driver` the newest one that the driver
    can run; both are (major, minor), and empty if there is none. `stale_modules` says that the cache of model
    code is older than the transformers package. `cached_models` are names of models on disk.
    """

    python: str = ''
    packages: dict[str, str] = field(default_factory=dict)
    package_folders: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    cuda_wheel: list[int] = field(default_factory=list)
    cuda_driver: list[int] = field(default_factory=list)
    gpus: list[Gpu] = field(default_factory=list)
    stale_modules: str = ''
    cached_models: list[str] = field(default_factory=list)
    has_hub_token: bool = False


def look() -> Probe:
    """What this Python and this machine have."""
    return Probe(
        python='.'.join(map(str, sys.version_info[:3])),
        packages={name: _version(name) for name in PACKAGES},
        package_folders={name: folder for name in ('gr00t', 'lerobot') if (folder := _checkout(name))},
        programs={name: shutil.which(name) or '' for name in PROGRAMS},
        cuda_wheel=_cuda_of_torch(),
        cuda_driver=_cuda_of_driver(),
        gpus=_visible(_gpus(), os.environ.get('CUDA_VISIBLE_DEVICES')),
        stale_modules=_stale_modules(),
        cached_models=_cached_models(),
        has_hub_token=bool(os.environ.get('HF_TOKEN')) or (_hub_home() / 'token').is_file(),
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ''


def _checkout(name: str) -> str:
    """The folder that holds a package, such as the checkout that it was installed from."""
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec else []
    return str(Path(places[0]).parent) if places else ''


def _cuda_of_torch() -> list[int]:
    spec = importlib.util.find_spec('torch')
    if spec is None or not spec.origin:
        return []
    version_file = Path(spec.origin).with_name('version.py')
    text = runpy.run_path(str(version_file)).get('cuda') if version_file.is_file() else None
    return [int(part) for part in text.split('.')[:2]] if text else []


def _cuda_of_driver() -> list[int]:
    try:
        library = ctypes.CDLL('libcuda.so.1')
    except OSError:
        return []
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return []
    return [version.value // 1000, version.value % 1000 // 10]


def _gpus() -> list[Gpu]:
    query = ['nvidia-smi', '--query-gpu=name,memory.total,memory.free', '--format=csv,noheader,nounits']
    try:
        text = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = []
    for line in text.splitlines():
        name, total_mib, free_mib = (part.strip() for part in line.rsplit(',', 2))
        gpus.append(Gpu(name, float(total_mib) / 1024, float(free_mib) / 1024))
    return gpus


def _visible(gpus: list[Gpu], choice: 'str | None') -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves; names of GPUs (UUIDs) are counted, in the order of the list."""
    if choice is None:
        return gpus
    wanted = [part.strip() for part in choice.split(',') if part.strip()]
    if all(part.isdigit() for part in wanted):
        return [gpus[int(part)] for part in wanted if int(part) < len(gpus)]
    return gpus[: len(wanted)]


def _hub_home() -> Path:
    return Path(os.environ.get('HF_HOME', '~/.cache/huggingface')).expanduser()


def _stale_modules() -> str:
    """The folder of cached model code, if it is older than the installed transformers."""
    folder = Path(os.environ.get('HF_MODULES_CACHE', _hub_home() / 'modules')) / 'transformers_modules'
    spec = importlib.util.find_spec('transformers')
    if spec is None or not spec.origin or not folder.is_dir():
        return ''
    return str(folder) if folder.stat().st_mtime < Path(spec.origin).stat().st_mtime else ''


def _cached_models() -> list[str]:
    hub = Path(os.environ.get('HF_HUB_CACHE', _hub_home() / 'hub'))
    found = [path.parent.name for path in hub.glob('models--*/snapshots') if any(path.iterdir())]
    return sorted(name.removeprefix('models--').replace('--', '/') for name in found)


def probe(python: str) -> Probe:
    """Asks another Python. Raises OSError, ValueError or SubprocessError if it cannot answer."""
    answer = subprocess.run(
        [python, str(Path(__file__).resolve())],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=True,
    )
    values = json.loads(answer.stdout.splitlines()[-1])
    return Probe(**{**values, 'gpus': [Gpu(**gpu) for gpu in values['gpus']]})


if __name__ == '__main__':
    print(json.dumps(asdict(look())))
