# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: read without the libraries that made them, and run in their own Python, which is
restarted when it dies.

The libraries are stand-ins with the same calls: the real ones are gigabytes.
"""

import json
import os
import signal
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from groot_ros.cli.main import main
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError, PolicyError
from groot_ros.geometry import poses_from_9d
from groot_ros.inference.backends.lerobot import LeRobotBackend
from groot_ros.inference.backends.warmup import example_observation
from groot_ros.inference.client import Client
from groot_ros.inference.model_process import ModelProcess, ModelSettings, rows_for_backends
from groot_ros.inference.protocol import Modality
from groot_ros.policies.checkpoint import read_checkpoint
from groot_ros.policies.factory import PolicyChoice, make_policy
from groot_ros.policies.policy import Observation

EMBODIMENT = load_embodiment('ur5e_robotiq_zed')


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def modality(keys, steps=(0,), actions=None):
    return {'delta_indices': list(steps), 'modality_keys': list(keys), 'action_configs': actions}


@pytest.fixture
def n1_7(tmp_path):
    """A checkpoint folder as N1.7 leaves it, weights apart."""
    folder = tmp_path / 'checkpoint-10000'
    absolute = {'rep': 'ABSOLUTE', 'type': 'NON_EEF', 'format': 'DEFAULT', 'state_key': None}
    configs = {
        'video': modality(['zed_camera']),
        'state': modality(EMBODIMENT.state_slices),
        'action': modality(EMBODIMENT.action_slices, range(16), [absolute] * 3),
        'language': modality([EMBODIMENT.language]),
    }
    kwargs = {'modality_configs': {'new_embodiment': configs}, 'use_percentiles': True, 'clip_outliers': True}
    write(
        folder / 'processor_config.json',
        {'processor_class': 'Gr00tN1d7Processor', 'processor_kwargs': kwargs},
    )
    sizes = {'state': EMBODIMENT.state_slices, 'action': EMBODIMENT.action_slices}
    statistics = {
        kind: {name: {'min': [0.0] * (part.stop - part.start)} for name, part in parts.items()}
        for kind, parts in sizes.items()
    }
    write(folder / 'statistics.json', {'new_embodiment': statistics})
    write(folder / 'config.json', {'model_type': 'Gr00tN1d7', 'model_name': 'nvidia/Cosmos-Reason2-2B'})
    return folder


@pytest.fixture
def act(tmp_path):
    """A checkpoint folder as LeRobot leaves it, weights apart."""
    folder = tmp_path / 'act_cube'
    inputs = {
        'observation.state': {'type': 'STATE', 'shape': [20]},
        'observation.images.zed_camera': {'type': 'VISUAL', 'shape': [3, 480, 640]},
    }
    config = {
        'type': 'act',
        'input_features': inputs,
        'output_features': {'action': {'type': 'ACTION', 'shape': [7]}},
        'n_action_steps': 12,
    }
    write(folder / 'checkpoints/last/pretrained_model/config.json', config)
    write(
        folder / 'checkpoints/last/pretrained_model/train_config.json', {'dataset': {'repo_id': 'lab/cube'}}
    )
    return folder


def test_a_gr00t_checkpoint_is_compared_with_the_embodiment(n1_7, capsys, tmp_path):
    assert main(['inspect', str(n1_7), '--json', str(tmp_path / 'found.json')]) == 0
    text = capsys.readouterr().out
    for part in (
        'GR00T N1.7',
        '16 steps, 0 to 15',
        'delta_tcp_position',
        'absolute non_eef default',
        '640x480',
        'fits the embodiment',
    ):
        assert part in text
    found = json.loads((tmp_path / 'found.json').read_text())
    assert found['sizes']['state']['tcp_pose'] == 7
    assert found['model_label'] == 'GR00T N1.7'
    assert found['mismatches'] == []


def test_a_checkpoint_that_does_not_fit_is_reported_by_name(n1_7, capsys):
    content = json.loads((n1_7 / 'statistics.json').read_text())
    content['new_embodiment']['state']['joint_position'] = {'min': [0.0] * 7}
    content['new_embodiment']['state']['tcp_pose'] = {'min': [0.0] * 6}
    write(n1_7 / 'statistics.json', content)
    assert main(['inspect', str(n1_7)]) == 1
    assert 'does not fit: state tcp_pose has 6 numbers where the embodiment has 7' in capsys.readouterr().out
    assert main(['inspect', str(n1_7), '--embodiment', 'so101_dualcam']) == 1
    assert 'video zed_camera is not among' in capsys.readouterr().out
    assert main(['serve', str(n1_7)]) == 1
    assert 'does not fit the embodiment ur5e_robotiq_zed: state tcp_pose has 6' in capsys.readouterr().err


def test_the_processor_may_lie_in_its_own_folder_and_tags_are_named(n1_7):
    (n1_7 / 'processor').mkdir()
    for name in ('processor_config.json', 'statistics.json'):
        (n1_7 / name).rename(n1_7 / 'processor' / name)
    assert read_checkpoint(n1_7, 'NEW_EMBODIMENT').modalities['action'].delta_indices == list(range(16))
    with pytest.raises(GrootRosError, match='has no embodiment tag xdof: it has new_embodiment'):
        read_checkpoint(n1_7, 'xdof')


def test_a_checkpoint_of_n1_5_says_that_its_data_config_is_needed(tmp_path):
    write(
        tmp_path / 'experiment_cfg/metadata.json',
        {'new_embodiment': {'statistics': {'state': {'arm': {'min': [0, 0]}}, 'action': {}}}},
    )
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.model_label == 'GR00T N1.5'
    assert checkpoint.sizes['state'] == {'arm': 2}
    assert any('--data-config' in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    ('file', 'content', 'key'),
    [
        ('processor_config.json', {'processor_kwargs': None}, 'processor_kwargs'),
        ('processor_config.json', {'processor_kwargs': {'modality_configs': []}}, 'modality_configs'),
        (
            'processor_config.json',
            {
                'processor_kwargs': {
                    'modality_configs': {'new_embodiment': {'state': {'delta_indices': ['0']}}}
                }
            },
            'delta_indices.0',
        ),
        (
            'processor_config.json',
            {'processor_kwargs': {'modality_configs': {'new_embodiment': {'state': {'modality_keys': [1]}}}}},
            'modality_keys.0',
        ),
        ('statistics.json', {'new_embodiment': {'state': {'arm': {'min': 3}}}}, 'state.arm.min'),
        ('config.json', {'type': 'act', 'input_features': {'x': {'shape': []}}}, 'input_features.x.shape'),
        ('config.json', {'type': 'act', 'input_features': {}, 'n_action_steps': 10**9}, 'n_action_steps'),
        ('config.json', '[' * 100_000, 'nested too deeply'),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_key(n1_7, file, content, key):
    write(n1_7 / file, content)
    with pytest.raises(GrootRosError, match=key):
        read_checkpoint(n1_7)


def test_a_checkpoint_of_lerobot_is_shown_and_compared(act, capsys):
    assert main(['inspect', str(act)]) == 0
    text = capsys.readouterr().out
    assert 'LeRobot act' in text
    assert 'trained on: lab/cube' in text
    assert main(['inspect', str(act), '--embodiment', 'so101_dualcam']) == 1
    assert 'observation.state has 20 numbers where the embodiment has 6' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('content', 'text'),
    [('{', 'cannot be read'), ('[]', 'is not a JSON object'), ('{}', 'is not a checkpoint of GR00T')],
)
def test_a_folder_that_is_no_checkpoint_is_reported(tmp_path, content, text):
    write(tmp_path / 'config.json', content)
    with pytest.raises(GrootRosError, match=text):
        read_checkpoint(tmp_path)


TORCH = """
class cuda:
    is_available = staticmethod(lambda: False)
"""
GR00T = """
import os, types
import numpy as np
class Gr00tPolicy:
    def __init__(self, tag, model_path, *, device, strict=True):
        assert (tag, device) == ('new_embodiment', 'cpu')
        print('loading shards')  # libraries print where they like
        if model_path.endswith('broken'):
            raise OSError('no file named model.safetensors')
    def get_modality_config(self):
        def part(keys, steps=(0,), actions=None):
            return types.SimpleNamespace(
                delta_indices=list(steps), modality_keys=keys, action_configs=actions)
        return {'video': part(['zed_camera']), 'state': part(['tcp_pose']),
                'action': part(['delta_tcp_position', 'delta_tcp_orientation', 'gripper_command'], range(16)),
                'language': part(['annotation.human.action.task_description'])}
    def get_action(self, observation, options=None):
        if observation['language']['annotation.human.action.task_description'] == [['die']]:
            os.kill(os.getpid(), 9)
        pose = observation['state']['tcp_pose']
        assert pose.dtype == np.float32 and pose.shape == (1, 1, 7)
        assert observation['video']['zed_camera'].shape[:2] == (1, 1)
        return {name: np.tile(pose[:, :, :size], (1, 16, 1)) for name, size in
                (('delta_tcp_position', 3), ('delta_tcp_orientation', 3), ('gripper_command', 1))}, {}
    def reset(self, options=None):
        return {}
"""


@pytest.fixture
def gr00t(tmp_path, monkeypatch):
    """A stand-in of NVIDIA's package in a folder that the model's Python finds."""
    libraries = tmp_path / 'libraries'
    write(libraries / 'torch.py', TORCH)
    for package in ('gr00t', 'gr00t/policy', 'gr00t/data'):
        write(libraries / package / '__init__.py', '')
    write(libraries / 'gr00t/policy/gr00t_policy.py', GR00T)
    write(libraries / 'gr00t/data/embodiment_tags.py', 'def EmbodimentTag(text):\n    return text\n')
    monkeypatch.setenv('PYTHONPATH', str(libraries))
    return libraries


LEROBOT_POLICY = """
import types
import torch
class Policy:
    def __init__(self, config):
        self.config, self.seen = config, []
    def to(self, device):
        return self
    def eval(self):
        return self
    def reset(self):
        pass
    def supports_rtc(self):
        return True
    def init_rtc_processor(self):
        pass
    def predict_action_chunk(self, batch, inference_delay=None, prev_chunk_left_over=None):
        left = 0 if prev_chunk_left_over is None else len(prev_chunk_left_over)
        assert batch['observation.state'].array.shape == (1, 20) and batch['task'] in (['go on'], ['warm up'])
        assert batch['observation.images.zed_camera'].array.shape == (1, 3, 480, 640)
        chunk = torch.Tensor.full((1, 12, 7), inference_delay + 100 * left)
        return chunk
"""
LEROBOT_TORCH = """
import numpy as np
class Tensor:
    def __init__(self, array):
        self.array = np.asarray(array)
    full = staticmethod(lambda shape, value: Tensor(np.full(shape, value, np.float32)))
    def __getitem__(self, part):
        return Tensor(self.array[part])
    def __len__(self):
        return len(self.array)
    def __truediv__(self, other):
        return Tensor(self.array / other)
    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)
    def movedim(self, a, b):
        return Tensor(np.moveaxis(self.array, a, b))
    def to(self, device):
        return self
    float = detach = cpu = lambda self: self
class inference_mode:
    __enter__ = __exit__ = lambda self, *_: None
class cuda:
    is_available = staticmethod(lambda: False)
from_numpy = Tensor
"""


@pytest.fixture
def lerobot(tmp_path, monkeypatch):
    """A stand-in of LeRobot with a policy that returns what it received of the previous chunk."""
    libraries = tmp_path / 'libraries'
    write(libraries / 'torch.py', LEROBOT_TORCH)
    for package in ('lerobot', 'lerobot/configs', 'lerobot/policies', 'lerobot/policies/rtc'):
        write(libraries / package / '__init__.py', '')
    write(libraries / 'lerobot/policy.py', LEROBOT_POLICY)
    write(
        libraries / 'lerobot/configs/policies.py',
        'import json, types\nclass PreTrainedConfig:\n    @staticmethod\n    def from_pretrained(path):\n'
        "        content = json.loads((path / 'config.json').read_text())\n"
        "        for kind in ('input_features', 'output_features'):\n"
        '            content[kind] = {name: types.SimpleNamespace(**feature)\n'
        '                             for name, feature in content[kind].items()}\n'
        '        return types.SimpleNamespace(**content)\n',
    )
    write(
        libraries / 'lerobot/policies/factory.py',
        'import types\nfrom lerobot.policy import Policy\ndef get_policy_class(kind):\n'
        '    return types.SimpleNamespace(from_pretrained=lambda path, config: Policy(config))\n'
        'def make_pre_post_processors(config, pretrained_path, preprocessor_overrides):\n'
        "    assert preprocessor_overrides == {'device_processor': {'device': 'cpu'}}\n"
        '    return (lambda batch: batch), (lambda action: action)\n',
    )
    write(libraries / 'lerobot/policies/rtc/configuration_rtc.py', 'class RTCConfig:\n    pass\n')
    monkeypatch.setenv('PYTHONPATH', str(libraries))


def test_a_policy_of_lerobot_continues_the_chunk_that_is_carried_out(lerobot, act):
    policy = make_policy(PolicyChoice('lerobot', str(act), timeout_s=20.0), EMBODIMENT, lambda line: None)
    try:
        assert (policy.spec.name, policy.spec.horizon, policy.spec.continues) == ('act act_cube', 12, True)
        first = seen()
        assert policy.infer(first)['gripper_command'][0, 0] == 0
        second = seen()
        second.tick_ns = 1
        second.follows_ns = 0
        second.elapsed_steps = 5
        second.frozen_steps = 3
        # 12 - 5 steps are left over, of which 3 will have been carried out.
        assert policy.infer(second)['gripper_command'][0, 0] == 703
    finally:
        policy.close()


@pytest.fixture
def fake_torch(monkeypatch):
    """The stand-in of torch in this process, and LeRobot's function for policies relative to the state."""
    torch = ModuleType('torch')
    exec(LEROBOT_TORCH, torch.__dict__)
    monkeypatch.setitem(sys.modules, 'torch', torch)
    rtc = ModuleType('lerobot.policies.rtc')

    def reanchor(prev_actions_absolute, current_state, relative_step, normalizer_step, policy_device):
        assert (type(normalizer_step).__name__, policy_device) == ('NormalizerProcessorStep', 'cpu')
        mask = [name != 'gripper' for name in relative_step.action_names]
        moved = np.asarray(prev_actions_absolute) - np.asarray(current_state)[..., :7] * mask
        return torch.Tensor(moved / 2)

    rtc.reanchor_relative_rtc_prefix = reanchor
    for name in ('lerobot', 'lerobot.policies'):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, 'lerobot.policies.rtc', rtc)
    return torch


class NormalizerProcessorStep:
    """Named like LeRobot's."""


class RelativeSteps:
    """A pre- and a postprocessor: actions but the gripper's are relative to the state, and all are halved."""

    def __init__(self, torch):
        self.torch = torch
        relative = SimpleNamespace(enabled=True, action_names=None, get_cached_state=lambda: self.state)
        self.steps = [relative, NormalizerProcessorStep()]

    def __call__(self, batch):
        self.state = batch['observation.state']
        return batch

    def undo(self, raw):
        mask = [name != 'gripper' for name in self.steps[0].action_names]
        return self.torch.Tensor(np.asarray(raw) * 2 + np.asarray(self.state)[..., :7] * mask)


def relative_backend(torch, chunks, more_steps=()):
    feature = SimpleNamespace(shape=[20])
    config = SimpleNamespace(
        type='pi0',
        device='cpu',
        input_features={'observation.state': feature},
        output_features={'action': SimpleNamespace(shape=[7])},
        rtc_config=object(),
        action_feature_names=[*'xyzabc', 'gripper'],
    )

    class Policy:
        def predict_action_chunk(self, batch, inference_delay=None, prev_chunk_left_over=None):
            chunks.append(prev_chunk_left_over)
            return torch.Tensor(np.full((1, 12, 7), 0.1, np.float32) * np.arange(1, 13)[:, None])

    policy = Policy()
    policy.config = config
    policy.supports_rtc = lambda: True
    preprocess = RelativeSteps(torch)

    class Postprocess:
        steps = more_steps

        def __call__(self, raw):
            return preprocess.undo(raw)

    settings = {'rows': rows_for_backends(EMBODIMENT), 'checkpoint': 'pi0_cube'}
    return LeRobotBackend(policy, preprocess, Postprocess(), settings)


def seen_from(state):
    parts = {
        name: np.full((1, 1, part.stop - part.start), state, np.float32)
        for name, part in EMBODIMENT.state_slices.items()
    }
    return {'state': parts, 'video': {}, 'language': {EMBODIMENT.language: [['go on']]}}


def test_the_rest_of_a_relative_chunk_of_lerobot_is_relative_to_the_new_state(fake_torch):
    given = []
    backend = relative_backend(fake_torch, given)
    _, info = backend.get_action(seen_from(1.0), None)
    follows = {'chunk': info['chunk'], 'elapsed_steps': 5, 'frozen_steps': 3}
    backend.get_action(seen_from(1.5), {'follows': follows})
    raw = np.full((7, 7), 0.1) * np.arange(6, 13)[:, None]
    # The same targets seen from a state that is 0.5 further, in units of the policy, which are halves.
    raw[:, :6] -= 0.25
    np.testing.assert_allclose(np.asarray(given[1]), raw, atol=1e-6)
    backend.get_action(seen_from(1.5), {'follows': {**follows, 'elapsed_steps': 12}})
    assert given[2] is None


def test_gr00t_of_lerobot_that_is_relative_to_the_state_is_not_continued(fake_torch):
    native = SimpleNamespace(use_relative_action=True)
    given = []
    backend = relative_backend(fake_torch, given, [native])
    assert not backend.extra_info()['real_time_chunking']
    _, info = backend.get_action(seen_from(1.0), None)
    follows = {'chunk': info['chunk'], 'elapsed_steps': 5, 'frozen_steps': 3}
    backend.get_action(seen_from(1.5), {'follows': follows})
    assert given == [None, None]


def test_a_hosted_model_obeys_only_the_policy_that_started_it(lerobot, act):
    policy = make_policy(PolicyChoice('lerobot', str(act), timeout_s=20.0), EMBODIMENT, lambda line: None)
    stranger = Client('127.0.0.1', policy._process.port, 'n1.7', timeout_s=20.0)
    try:
        for endpoint in ('reset', 'kill', 'ping'):
            with pytest.raises(PolicyError, match='Invalid API token'):
                stranger.request(endpoint)
        assert policy.infer(seen())['gripper_command'][0, 0] == 0
    finally:
        stranger.close()
        policy.close()


def test_a_policy_of_lerobot_with_other_rows_is_refused_by_name(lerobot, act):
    reason = r'it wants the image observation\.images\.zed_camera; its state has 20'
    with pytest.raises(PolicyError, match=f'does not fit the embodiment so101_dualcam: {reason}'):
        make_policy(PolicyChoice('lerobot', str(act)), load_embodiment('so101_dualcam'), lambda line: None)


def seen(task='go on'):
    return Observation(0, np.arange(20) / 100, {'zed_camera': np.zeros((480, 640, 3), np.uint8)}, task)


def test_a_model_in_its_own_process_answers_dies_and_comes_back(gr00t, tmp_path, eventually):
    lines = []
    policy = make_policy(
        PolicyChoice('gr00t', str(tmp_path / 'checkpoint-10000'), timeout_s=20.0), EMBODIMENT, lines.append
    )
    try:
        assert policy.spec.name == 'GR00T checkpoint-10000'
        assert any('warming up, 3 of 3' in line for line in lines)
        assert 'loading shards' in lines
        answer = policy.infer(seen())
        np.testing.assert_allclose(
            answer['delta_tcp_position'], np.tile(np.arange(13, 16) / 100, (16, 1)), atol=1e-6
        )
        pid = policy._process._process.pid
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: 'SIGKILL' in policy.unavailable_reason())
        with pytest.raises(
            PolicyError, match='GR00T checkpoint-10000 does not run: it was killed by SIGKILL'
        ):
            policy.infer(seen())
        assert eventually(lambda: not policy.unavailable_reason())
        assert policy.infer(seen())['gripper_command'].shape == (16, 1)
        assert policy._process._process.pid != pid
    finally:
        policy.close()
    assert policy._process._process.poll() is not None


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({'checkpoint': 'broken'}, 'no file named model.safetensors'),
        ({'backend': 'lerobot'}, 'has no lerobot.*: name the Python that has lerobot with --python'),
        ({'python': '/nowhere/python'}, '/nowhere/python cannot be run'),
        ({'python': sys.executable, 'host': '203.0.113.9'}, '203.0.113.9:0 cannot be served'),
    ],
)
def test_a_model_that_does_not_start_is_reported_in_one_sentence(gr00t, settings, text):
    process = ModelProcess(
        ModelSettings(**{'backend': 'gr00t', 'checkpoint': 'c', **settings}), EMBODIMENT, lambda line: None
    )
    with pytest.raises(PolicyError, match=f'The model could not be started: .*{text}'):
        process.wait(60.0)


@pytest.mark.parametrize('name', ['ur5e_robotiq_zed_9d', 'franka_mcx'])
def test_the_state_of_the_warm_up_has_rotations(name):
    """A checkpoint that is relative to the state raised "Non-positive determinant" at 0.1 everywhere."""
    embodiment = load_embodiment(name)
    keys = [*embodiment.state_slices, 'eef_9d']
    modalities = {
        'video': Modality([0], []),
        'state': Modality([-1, 0], keys),
        'language': Modality([0], []),
    }
    backend = SimpleNamespace(modalities=lambda: modalities, extra_info=dict)
    state = example_observation(backend, rows_for_backends(embodiment))['state']
    pose = poses_from_9d(state['eef_9d'][0])
    np.testing.assert_allclose(pose[:, 3:], [[0, 0, 0, 1]] * 2, atol=1e-6)
    whole = np.concatenate([state[key] for key in embodiment.state_slices], axis=-1)
    assert whole.shape == (1, 2, embodiment.state_size) and whole.dtype == np.float32
    for part in embodiment.quaternion_slices:
        np.testing.assert_allclose(np.linalg.norm(whole[..., part], axis=-1), 1.0)


def test_a_model_does_not_outlive_who_started_it(gr00t, eventually):
    process = ModelProcess(ModelSettings('gr00t', 'c'), EMBODIMENT, lambda line: None)
    process.wait(60.0)
    child = process._process
    child.stdin.close()  # as the end of this process would
    assert eventually(lambda: child.poll() is not None)
    process.close()


def test_unknown_backends_and_missing_checkpoints_are_reported():
    with pytest.raises(GrootRosError, match='needs a checkpoint'):
        make_policy(PolicyChoice('lerobot'), EMBODIMENT, print)
    with pytest.raises(
        GrootRosError,
        match="backend 'act' is not known: use one of replay, gr00t, lerobot, small, remote, hold, scripted",
    ):
        make_policy(PolicyChoice('act'), EMBODIMENT, print)


def test_serving_a_checkpoint_ends_with_its_model(gr00t, n1_7, loopback, capfd):
    """The command line, until somebody with the token says kill."""
    os.environ['GROOT_ROS_API_TOKEN'] = 'secret'
    try:
        codes = []
        thread = threading.Thread(
            target=lambda: codes.append(main(['serve', str(n1_7), '--host', loopback, '--port', '5633'])),
            daemon=True,
        )
        thread.start()
        deadline_s = time.monotonic() + 60
        client = Client(loopback, 5633, 'n1.7', 'secret', 0.5)
        while time.monotonic() < deadline_s:
            try:
                assert client.request('ping')['status'] == 'ok'
                break
            except PolicyError:
                pass
        with pytest.raises(PolicyError, match='Invalid API token'):
            Client(loopback, 5633, 'n1.7', 'guess', 5.0).request('kill')
        assert client.request('kill') is None
        thread.join(60)
        assert codes == [0]
    finally:
        del os.environ['GROOT_ROS_API_TOKEN']
    assert 'answers at' in capfd.readouterr().out
