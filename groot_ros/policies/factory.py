# SPDX-License-Identifier: Apache-2.0
"""Makes the policy that a user chose, and loads models in a thread, because that takes long."""

import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError, PolicyError, choose
from groot_ros.inference.backends import BACKEND_NAMES, BACKENDS
from groot_ros.inference.client import Client
from groot_ros.inference.model_process import ModelProcess, ModelSettings
from groot_ros.inference.protocol import TOKEN_VARIABLE
from groot_ros.policies.builtin_policies import HoldPolicy, ScriptedPolicy
from groot_ros.policies.policy import Observation, Policy
from groot_ros.policies.remote_policy import RemotePolicy
from groot_ros.policies.replay_policy import ReplayPolicy
from groot_ros.settings import setting

POLICY_BACKENDS = ('replay', *BACKENDS, 'remote', 'hold', 'scripted')


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
    """A model in its own process, which this object waits for and ends with `close`.

    Raises GrootRosError if the model cannot be started or does not fit the embodiment.
    """

    def __init__(self, process: ModelProcess, embodiment: Embodiment, timeout_s: float) -> None:
        self._process = process
        process.wait()
        gr00t_version = process.settings.gr00t_version
        client = Client(process.settings.host, process.port, gr00t_version, process.token, timeout_s)
        try:
            self._remote = RemotePolicy(client, embodiment, gr00t_version, process.name)
        except GrootRosError:
            process.close()
            raise
        self.spec = self._remote.spec

    def infer(self, observation: Observation) -> dict:
        """The model's action chunk. Raises PolicyError at once if the model's process has died."""
        if reason := self.unavailable_reason():
            raise PolicyError(reason)
        return self._remote.infer(observation)

    def reset(self) -> None:
        """Starts a new episode in the model."""
        self._remote.reset()

    def unavailable_reason(self) -> str:
        """Why the model's process does not answer now; empty if it can."""
        reason = self._process.unavailable_reason()
        return f'{self._process.name} does not run: {reason}' if reason else ''

    def close(self) -> None:
        """Closes the connection and ends the model's process."""
        self._remote.close()
        self._process.close()


def make_policy(
    choice: PolicyChoice,
    embodiment: Embodiment,
    on_line: Callable[[str], None],
    token_host: str = '',
    token: str = '',
) -> Policy:
    """Makes a policy that is ready for inference. Loading a model takes long; `on_line` gets its progress.

    A model server on `token_host` is sent `token`, or that of GROOT_ROS_API_TOKEN if none is given; others
    are sent none.
    Raises GrootRosError if the backend is not known, or if a checkpoint, dataset or server is missing or
    does not fit the embodiment.
    """
    choose('policy backend', choice.backend, POLICY_BACKENDS)
    if choice.backend in BACKENDS:
        return ManagedModelPolicy(start_model(choice, embodiment, on_line), embodiment, choice.timeout_s)
    if choice.backend == 'replay':
        return _make_replay(choice, embodiment)
    if choice.backend == 'remote':
        sent = (token or _token()) if choice.host == token_host else ''
        client = Client(choice.host, choice.port, choice.gr00t_version, sent, choice.timeout_s)
        return RemotePolicy(client, embodiment, choice.gr00t_version)
    if choice.backend == 'scripted':
        return ScriptedPolicy(embodiment, choice.fault)
    return HoldPolicy(embodiment)


def start_model(choice: PolicyChoice, embodiment: Embodiment, on_line: Callable[[str], None]) -> ModelProcess:
    """Starts the process of a model backend; it is not ready yet. Raises GrootRosError without a checkpoint.

    It has a token of its own, since its port is open to every user of this machine.
    """
    return ModelProcess(_model_settings(choice), embodiment, on_line, secrets.token_hex(16))


def _make_replay(choice: PolicyChoice, embodiment: Embodiment) -> ReplayPolicy:
    if not choice.path:
        raise GrootRosError(
            'The backend replay needs the parameter dataset: give the folder of a converted dataset.'
        )
    return ReplayPolicy(Path(choice.path).expanduser(), choice.episode, embodiment)


def _token() -> str:
    return os.environ.get(TOKEN_VARIABLE, '')


def _model_settings(choice: PolicyChoice) -> ModelSettings:
    return ModelSettings(
        backend=choice.backend,
        checkpoint=str(Path(choice.path).expanduser()) if choice.path else '',
        python=choice.python,
        device=choice.device,
        embodiment_tag=choice.embodiment_tag,
        data_config=choice.data_config,
        gr00t_version=choice.gr00t_version,
    )


class PolicyLoader:
    """Makes one policy at a time in a thread, so that the node goes on while a model loads for minutes."""

    def __init__(self) -> None:
        self._load: _Load | None = None

    @property
    def busy(self) -> bool:
        """Whether a policy is being made, or waits for `poll`."""
        return self._load is not None

    def start(self, make: Callable[[], Policy], observation: Observation | None = None) -> None:
        """Makes a policy. With an observation it also runs it once: a model's first inference is slower."""
        self.abandon()
        self._load = _Load(make, observation)

    def poll(self) -> Policy | GrootRosError | None:
        """The policy or the error that prevented it, once; None while it is being made."""
        if self._load is None or self._load.result is None:
            return None
        result = self._load.result
        self._load = None
        return result

    def abandon(self) -> None:
        """Waits no longer for the policy: it is closed as soon as it has been made."""
        if self._load is not None:
            self._load.abandon()
            self._load = None


class _Load:
    """One policy that is being made in a thread. `result` is the policy, or why there is none."""

    def __init__(self, make: Callable[[], Policy], observation: Observation | None) -> None:
        self.result: Policy | GrootRosError | None = None
        self._abandoned = False
        self._lock = threading.Lock()
        threading.Thread(target=self._run, args=(make, observation), name='loading', daemon=True).start()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            made = self.result
        self._close_unwanted(made)

    def _run(self, make: Callable[[], Policy], observation: Observation | None) -> None:
        made = _make_warm(make, observation)
        with self._lock:
            self.result = made
            abandoned = self._abandoned
        if abandoned:
            self._close_unwanted(made)

    def _close_unwanted(self, made: Policy | GrootRosError | None) -> None:
        if isinstance(made, Policy):
            made.close()


def _make_warm(make: Callable[[], Policy], observation: Observation | None) -> Policy | GrootRosError:
    try:
        policy = make()
        if observation is not None and policy.spec.observes:
            _warm_up(policy, observation)
    except GrootRosError as error:
        return error
    except Exception as error:  # a model's libraries may raise anything; only this policy is refused
        return PolicyError(f'making the policy failed: {type(error).__name__}: {error}')
    return policy


def _warm_up(policy: Policy, observation: Observation) -> None:
    try:
        policy.reset()
        policy.infer(observation)
    except Exception:
        policy.close()
        raise
