# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking of GR00T N1.7: the rest of a chunk is expressed relative to the new state.

The policy is a stand-in with the calls of NVIDIA's, whose numbers are known: its processor makes poses
relative to the state and normalises each step with statistics of its own, and its head freezes and guides
steps as NVIDIA's does.
"""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from groot_ros.embodiment import load_embodiment
from groot_ros.geometry import absolute_9d, apply_delta, pose_to_eef_9d, poses_from_9d, relative_9d
from groot_ros.inference.backends.gr00t import Gr00tBackend
from groot_ros.inference.backends.gr00t_continuation import can_continue
from groot_ros.inference.client import Client
from groot_ros.inference.server import Server
from groot_ros.policies.policy import Observation
from groot_ros.policies.remote_policy import RemotePolicy

from .test_policy_runner import ROW_NS, Run

H = 16
FPS = 20
TAG = 'new_embodiment'
EMBODIMENT = load_embodiment('ur5e_robotiq_zed_9d')
START = np.array([0.4, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0])


def pose(t):
    """A known motion that moves and turns, so that relative poses differ from one state to the next."""
    return apply_delta(START, np.array([0.2 * t, 0.1 * t, -0.05 * t, 0.3 * t, 0.2 * t, 0.8 * t]))


def poses_since(t, offset=0.0):
    """The poses (H, 9) of the steps after t, as `eef_9d`, moved by an offset along x."""
    steps = np.array([pose(t + (k + 1) / FPS) for k in range(H)])
    steps[:, 0] += offset
    return pose_to_eef_9d(steps)


class Normaliser:
    """Poses relative to the state, then -1 to 1 by the step's own bounds, as StateActionProcessor does it."""

    def __init__(self, horizon=H):
        self.clip_outliers = True
        spread = np.linspace([0.1] * 3 + [1.1] * 6, [0.6] * 3 + [1.4] * 6, horizon)
        self.bounds = {'eef_9d': (-spread, 1.5 * spread), 'gripper_command': (np.zeros(1), np.ones(1))}

    def apply_action(self, action, tag, state=None):
        relative = {**action, 'eef_9d': relative_9d(state['eef_9d'][-1], action['eef_9d'])}
        found = {key: self.normalised(key, values) for key, values in relative.items()}
        return {key: np.clip(x, -1, 1) if self.clip_outliers else x for key, x in found.items()}

    def normalised(self, key, values):
        low, high = self.bounds[key]
        return 2 * (values - low) / (high - low) - 1

    def decoded(self, key, values, state):
        low, high = self.bounds[key]
        physical = (values + 1) / 2 * (high - low) + low
        return absolute_9d(state['eef_9d'][-1], physical) if key == 'eef_9d' else physical


class Head:
    """Flow matching that goes straight to a plan; the given steps begin as they are and move by a ramp."""

    def get_action(self, backbone_output, action_input, options=None):
        actions = np.zeros((1, 40, 132))
        strength = np.ones((40, 1))
        if 'action' in action_input:
            self.seen = (action_input['action'][0].copy(), dict(options))
            end, overlap = options['action_horizon'], options['rtc_overlap_steps']
            frozen = options['rtc_frozen_steps']
            actions[:, :overlap] = action_input['action'][:, end - overlap : end]
            strength[:frozen] = 0
            ramp = 1 - np.exp(-options['rtc_ramp_rate'] * np.linspace(0, 1, overlap - frozen + 2))
            strength[frozen:overlap] = (ramp / ramp[-1])[1:-1, None]
        velocity = action_input['plan'] - actions
        for _ in range(4):
            actions = actions + velocity / 4 * strength
        return {'action_pred': actions}


class Model:
    def __init__(self):
        self.action_head = Head()

    def get_action(self, inputs, options=None):
        return self.action_head.get_action(None, inputs, options)


class Gr00tPolicy:
    """The calls of NVIDIA's class; `offset` is how far its plan is from the known motion."""

    embodiment_tag = SimpleNamespace(value=TAG)

    def __init__(self, horizon=H):
        self.horizon = horizon
        self.offset = 0.0
        self.time_s = 0.0
        self.model = Model()
        keys = ['eef_9d', 'gripper_command']
        configs = {
            'video': SimpleNamespace(delta_indices=[0], modality_keys=['zed_camera']),
            'state': SimpleNamespace(delta_indices=[0], modality_keys=['eef_9d', 'gripper_state']),
            'action': SimpleNamespace(delta_indices=list(range(horizon)), modality_keys=keys),
            'language': SimpleNamespace(delta_indices=[0], modality_keys=[EMBODIMENT.language]),
        }
        self.processor = SimpleNamespace(
            state_action_processor=Normaliser(horizon),
            modality_configs={TAG: configs},
            max_action_horizon=40,
            max_action_dim=132,
        )
        self.collate_fn = lambda items: {
            'inputs': {key: np.stack([item[key] for item in items]) for key in items[0]}
        }

    def get_modality_config(self):
        return self.processor.modality_configs[TAG]

    def get_action(self, observation, options=None):
        state = {key: values[0] for key, values in observation['state'].items()}
        normaliser = self.processor.state_action_processor
        wanted = {'eef_9d': self.wanted(state), 'gripper_command': np.ones((self.horizon, 1))}
        normalised = normaliser.apply_action(wanted, TAG, state)
        plan = np.zeros((40, 132))
        plan[: self.horizon, :10] = np.hstack([normalised['eef_9d'], normalised['gripper_command']])
        collated = self.collate_fn([{'plan': plan}])
        rows = self.model.get_action(**collated)['action_pred'][0, : self.horizon]
        action = {
            'eef_9d': normaliser.decoded('eef_9d', rows[:, :9], state),
            'gripper_command': normaliser.decoded('gripper_command', rows[:, 9:10], state),
        }
        return {key: values[None].astype(np.float32) for key, values in action.items()}, {}

    def wanted(self, state):
        return poses_since(self.time_s, self.offset)

    def reset(self, options=None):
        return {}


class Undecided(Gr00tPolicy):
    """Moves along y, and to the left or right as it happens: each plan begins at the observed pose."""

    def __init__(self):
        super().__init__(40)
        self.random = np.random.default_rng(0)

    def wanted(self, state):
        times_s = (np.arange(self.horizon) + 1) / FPS
        sideways = self.random.choice([-0.05, 0.05])
        targets = np.repeat(state['eef_9d'][-1:].astype(float), self.horizon, axis=0)
        targets[:, 0] += sideways * times_s
        targets[:, 1] += 0.1 * times_s
        return targets


@pytest.fixture
def policy():
    return Gr00tPolicy()


def backend_of(policy):
    settings = {'rows': {'image_sizes': {}}, 'checkpoint': 'checkpoint-5', 'embodiment_tag': TAG}
    return Gr00tBackend(policy, settings)


def seen_at(t):
    state = {'eef_9d': pose_to_eef_9d(pose(t)[None])[None].astype(np.float32)}
    return {'state': {**state, 'gripper_state': np.zeros((1, 1, 1), np.float32)}}


def test_the_rest_of_a_chunk_is_relative_to_the_new_state_and_normalised_by_its_new_step(policy):
    backend = backend_of(policy)
    assert backend.extra_info() == {'real_time_chunking': True}
    first, info = backend.get_action(seen_at(0.0), None)
    np.testing.assert_allclose(first['eef_9d'][0], poses_since(0.0), atol=1e-6)
    elapsed, frozen = 6, 4
    policy.time_s = elapsed / FPS
    policy.offset = 0.03
    follows = {'chunk': info['chunk'], 'elapsed_steps': elapsed, 'frozen_steps': frozen}
    second, _ = backend.get_action(seen_at(policy.time_s), {'follows': follows})
    prefix, options = policy.model.action_head.seen
    left = poses_since(0.0)[elapsed:]
    reference = pose_to_eef_9d(pose(policy.time_s)[None])[0]
    low, high = policy.processor.state_action_processor.bounds['eef_9d']
    steps = H - elapsed
    wanted = 2 * (relative_9d(reference, left) - low[:steps]) / (high[:steps] - low[:steps]) - 1
    np.testing.assert_allclose(prefix[:steps, :9], wanted, atol=1e-5)
    assert not prefix[:, 10:].any() and not prefix[H:].any()
    assert options == {
        'action_horizon': steps,
        'rtc_overlap_steps': steps,
        'rtc_frozen_steps': frozen,
        'rtc_ramp_rate': 5.0,
    }
    # What is being executed comes back to the bit, and the rest goes over to the new plan without a jump.
    np.testing.assert_array_equal(
        second['eef_9d'][0, :frozen], first['eef_9d'][0, elapsed : elapsed + frozen]
    )
    off = second['eef_9d'][0, :, 0] - poses_since(policy.time_s)[:, 0]
    assert np.all(np.diff(off) > -1e-6)
    assert np.max(np.diff(off)) < 0.02
    assert off[-1] == pytest.approx(0.03, abs=1e-5)


def test_without_a_new_reference_the_rest_would_jump(policy):
    """The numbers of the old chunk, read relative to the new state, are elsewhere by the way in between."""
    normaliser = policy.processor.state_action_processor
    elapsed = 6
    old = normaliser.apply_action(
        {'eef_9d': poses_since(0.0)}, TAG, {'eef_9d': pose_to_eef_9d(pose(0.0)[None])}
    )
    kept = np.concatenate([old['eef_9d'][elapsed:], old['eef_9d'][:elapsed]])
    state = {'eef_9d': pose_to_eef_9d(pose(elapsed / FPS)[None])}
    read = normaliser.decoded('eef_9d', kept, state)[: H - elapsed]
    assert np.linalg.norm(read[0, :3] - poses_since(0.0)[elapsed, :3]) > 0.01


@pytest.mark.parametrize(
    'follows',
    [
        {'chunk': 99, 'elapsed_steps': 2, 'frozen_steps': 1},
        {'chunk': 1, 'elapsed_steps': H, 'frozen_steps': 1},
        {},
    ],
)
def test_a_chunk_that_is_unknown_or_used_up_is_not_continued(policy, follows):
    backend = backend_of(policy)
    backend.get_action(seen_at(0.0), None)
    backend.get_action(seen_at(0.1), {'follows': follows})
    assert not hasattr(policy.model.action_head, 'seen')


def test_the_policy_is_as_before_after_each_inference(policy):
    backend = backend_of(policy)
    collate = policy.collate_fn
    backend.get_action(seen_at(0.0), None)
    follows = {'chunk': 1, 'elapsed_steps': 3, 'frozen_steps': 40}
    action, info = backend.get_action(seen_at(0.15), {'follows': follows})
    assert action['eef_9d'].shape == (1, H, 9) and info == {'chunk': 2}
    assert policy.collate_fn is collate
    assert policy.processor.state_action_processor.clip_outliers
    backend.reset()
    del policy.model.action_head.seen
    backend.get_action(seen_at(0.3), {'follows': {'chunk': 2, 'elapsed_steps': 3, 'frozen_steps': 2}})
    assert not hasattr(policy.model.action_head, 'seen')


def test_targets_beyond_the_statistics_are_not_clipped(policy):
    """A frozen step is executed as it is, so the model must see it as it is."""
    backend = backend_of(policy)
    backend.get_action(seen_at(0.0), None)
    follows = {'chunk': 1, 'elapsed_steps': 2, 'frozen_steps': 2}
    far = seen_at(0.1)
    far['state']['eef_9d'][0, 0, :3] -= 0.5
    backend.get_action(far, {'follows': follows})
    assert np.abs(policy.model.action_head.seen[0]).max() > 1.0


@pytest.mark.parametrize('missing', ['collate_fn', 'processor', 'head'])
def test_other_versions_do_not_continue(policy, missing):
    if missing == 'head':
        policy.model.action_head.get_action = lambda backbone_output, action_input: None
    else:
        delattr(policy, missing)
    assert not can_continue(policy)


def test_a_chunk_is_continued_through_the_protocol(policy, loopback):
    server = Server(backend_of(policy), loopback, 0)
    stop = threading.Event()
    thread = threading.Thread(target=server.run, args=(lambda: not stop.is_set(),))
    thread.start()
    try:
        client = Client(loopback, server.port, 'n1.7')
        remote = RemotePolicy(client, EMBODIMENT)
        assert remote.spec.continues
        first = remote.infer(observation_at(0.0))
        policy.time_s = 0.25
        policy.offset = 0.03
        second = observation_at(0.25)
        second.follows_ns = 0
        second.elapsed_steps = 5
        second.frozen_steps = 3
        answer = remote.infer(second)
        remote.close()
    finally:
        stop.set()
        thread.join()
    old = poses_from_9d(first['eef_9d'])[5:8]
    np.testing.assert_array_equal(poses_from_9d(answer['eef_9d'])[:3], old)


def observation_at(t):
    state = np.zeros(EMBODIMENT.state_size)
    state[EMBODIMENT.pose_part] = pose(t)
    images = {'zed_camera': np.zeros((480, 640, 3), np.uint8)}
    return Observation(round(t * 1e9), state, images, 'go on')


class DirectClient(Client):
    """A client whose server is in the same thread, so that time can be made up."""

    def __init__(self, server):
        super().__init__('127.0.0.1', server.port, 'n1.7')
        self._server = server

    def _exchange(self, request, timeout_ms):
        return self._decode([self._server.answer(request)])


class ObservedRun(Run):
    """A run whose policy sees the commanded pose of the newest row."""

    def __init__(self, policy, latency_ns):
        settings = {'max_chunk_offset_m': 0.2, 'max_blind_s': 2.0}
        super().__init__(policy, latency_ns, settings=settings, robot_action_latency_s=0.0)
        self.runner._observation_builder.observe = self.observe
        self.path = []
        self.jumps_m = []

    def observe(self, now_ns, task):
        state = np.zeros(EMBODIMENT.state_size)
        state[EMBODIMENT.pose_part] = self.pose
        images = {'zed_camera': np.zeros((48, 64, 3), np.uint8)}
        return Observation(now_ns // ROW_NS * ROW_NS, state, images, task)

    def execute(self, command):
        super().execute(command)
        self.path.append(self.pose[:3])

    @property
    def accelerations(self):
        """Of the commanded path, in m/s2, after the start."""
        return np.linalg.norm(np.diff(self.path, 2, axis=0), axis=1)[FPS:] * FPS**2


@pytest.mark.parametrize('latency_ms', [0, 100, 200, 400, 800])
def test_an_undecided_policy_moves_more_smoothly_when_its_chunks_continue(loopback, latency_ms):
    """Plans that disagree by 0.1 m/s sideways: what that costs with and without real-time chunking."""
    worst = {}
    for continues in (False, True):
        server = Server(backend_of(Undecided()), loopback, 0)
        remote = RemotePolicy(DirectClient(server), EMBODIMENT)
        remote.spec.continues = continues
        run = ObservedRun(remote, latency_ms * 1_000_000).go_on(12.0)
        server.run(lambda: False)
        assert run.runner.end_reason is None
        assert len(run.chunks) >= 5
        worst[continues] = run.accelerations.max()
    assert worst[True] < 0.7 * worst[False]
