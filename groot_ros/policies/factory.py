# SPDX-License-Identifier: Apache-2.0
"""Makes the policy that an operator chose, in a thread of its own where that takes long."""

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError, PolicyError
from groot_ros.inference.backends import BACKEND_NAMES, BACKENDS
from groot_ros.inference.client import Client
from groot_ros.inference.model_process import ModelProcess, ModelSettings
from groot_ros.inference.protocol import TOKEN_VARIABLE
from groot_ros.policies.builtin_policies import HoldPolicy, ScriptedPolicy
from groot_ros.policies.policy import Observation, Policy
from groot_ros.policies.remote_policy import RemotePolicy
from groot_ros.policies.replay_policy import ReplayPolicy
from groot_ros.settings import setting


@dataclass(frozen=True)
class PolicyChoice:
    """A policy backend and its settings.

    `path` is the dataset for `replay` and the checkpoint for a model backend.
    """

    backend: str = setting(
        'replay',
        f'replay (an episode of a dataset), {BACKEND_NAMES} (a checkpoint), remote (a model server), hold, '
        'or scripted (a fault)',
    )
    path: str = ''
    episode: int = setting(0, 'episode of the dataset, counted from 0, for replay')
    host: str = setting('127.0.0.1', 'address of the model server, for remote')
    port: int = setting(5555, 'port of the model server, for remote')
    gr00t_version: str = setting(
        'n1.7', 'GR00T version whose protocol the model server speaks: n1.5, n1.6 or n1.7'
    )
    timeout_s: float = setting(2.0, 'maximum time for an inference, s', 0.05, 60.0)
    fault: str = setting(
        '', 'what goes wrong, for scripted: late, empty, not_a_number, jumping, shape, hanging or crashing'
    )
    python: str = setting(
        '',
        "the Python that has the model's libraries, such as /opt/gr00t/.venv/bin/python; empty for this one",
    )
    device: str = setting('', 'device of the model, such as cuda:0; empty for the GPU if there is one')
    embodiment_tag: str = setting('new_embodiment', 'embodiment tag of the checkpoint, for gr00t')
    data_config: str = setting('', 'MODULE:CLASS of the data config, for gr00t checkpoints of N1.5')


class ManagedModelPolicy(Policy):
    """A model in a process of its own, that lives as long as this object."""

    def __init__(self, process: ModelProcess, embodiment: Embodiment, timeout_s: float) -> None:
        self._process = process
        process.wait()
        settings = process.settings
        client = Client(
            settings.host, process.port, settings.gr00t_version, os.environ.get(TOKEN_VARIABLE, ''), timeout_s
        )
        try:
            self._remote = RemotePolicy(client, embodiment, settings.gr00t_version, process.name)
        except GrootRosError:
            process.close()
            raise
        self.spec = self._remote.spec

    def infer(self, observation: Observation) -> dict:
        """One request. Raises PolicyError at once where the model's process has died."""
        if reason := self.unavailable_reason():
            raise PolicyError(reason)
        return self._remote.infer(observation)

    def reset(self) -> None:
        """Begins anew."""
        self._remote.reset()

    def unavailable_reason(self) -> str:
        """Whether the model's process is being started again."""
        reason = self._process.unavailable_reason()
        return f'{self._process.name} does not run: {reason}' if reason else ''

    def close(self) -> None:
        """Ends the process."""
        self._remote.close()
        self._process.close()


def make_policy(choice: PolicyChoice, embodiment: Embodiment, on_line: Callable[[str], None]) -> Policy:
    """A policy that can be asked at once. Loading a model takes its time; `on_line` gets what is said meanwhile.

    Raises GrootRosError for a backend that is not known, and where a checkpoint, a dataset or a server is missing or does not fit.
    """
    if choice.backend == 'replay':
        if not choice.path:
            raise GrootRosError(
                'The backend replay needs the parameter dataset: give the folder of a converted dataset.'
            )
        return ReplayPolicy(Path(choice.path).expanduser(), choice.episode, embodiment)
    if choice.backend == 'remote':
        client = Client(
            choice.host,
            choice.port,
            choice.gr00t_version,
            os.environ.get(TOKEN_VARIABLE, ''),
            choice.timeout_s,
        )
        return RemotePolicy(client, embodiment, choice.gr00t_version)
    if choice.backend in BACKENDS:
        checkpoint = str(Path(choice.path).expanduser()) if choice.path else ''
        settings = ModelSettings(
            choice.backend,
            checkpoint,
            choice.python,
            choice.device,
            choice.embodiment_tag,
            choice.data_config,
            gr00t_version=choice.gr00t_version,
        )
        return ManagedModelPolicy(ModelProcess(settings, embodiment, on_line), embodiment, choice.timeout_s)
    if choice.backend == 'hold':
        return HoldPolicy(embodiment)
    if choice.backend == 'scripted':
        return ScriptedPolicy(embodiment, choice.fault)
    raise GrootRosError(
        f'The policy backend {choice.backend!r} is not known: use replay, remote, {", ".join(BACKENDS)}, hold or scripted.'
    )


class PolicyLoader:
    """Makes one policy at a time in a thread: a model takes minutes to load, and the node must go on meanwhile.

    `busy` says whether a policy is being made.
    """

    def __init__(self) -> None:
        self.busy = False
        self._finished: queue.SimpleQueue[Policy | Exception] = queue.SimpleQueue()

    def start(self, make: Callable[[], Policy], observation: Observation | None = None) -> None:
        """Makes a policy and, if an observation is given, runs it once: a model's first inference is slower."""
        self.busy = True
        threading.Thread(target=self._run, args=(make, observation), name='loading', daemon=True).start()

    def poll(self) -> Policy | Exception | None:
        """The policy or the exception that prevented it, once; None while it is being made."""
        if self._finished.empty():
            return None
        self.busy = False
        return self._finished.get()

    def _run(self, make: Callable[[], Policy], observation: Observation | None) -> None:
        try:
            policy = make()
            if observation is not None and policy.spec.observes:
                _warm_up(policy, observation)
        except Exception as error:  # a model's libraries may raise anything; only this policy is rejected
            self._finished.put(error)
        else:
            self._finished.put(policy)


def _warm_up(policy: Policy, observation: Observation) -> None:
    try:
        policy.reset()
        policy.infer(observation)
    except Exception:
        policy.close()
        raise
