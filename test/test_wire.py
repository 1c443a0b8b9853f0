"""GR00T's wire: flavours, a client against servers of all kinds, and what is refused before anything is asked."""

import contextlib
import json
import threading

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from groot_ros.cli import main
from groot_ros.embodiment import load_embodiment
from groot_ros.policies.base import Observation, PolicyError
from groot_ros.policies.client import Client
from groot_ros.policies.local_backends import LocalBackend
from groot_ros.policies.remote import RemotePolicy, mismatches
from groot_ros.policies.replay import ReplayPolicy
from groot_ros.policies.serving import Server
from groot_ros.policies.wire import FLAVOURS, Modality, WireError, pack, unpack

ARRAYS = hnp.arrays(st.sampled_from([np.uint8, np.float32, np.float64, np.int64, np.bool_]), hnp.array_shapes(max_dims=4, max_side=5))


@pytest.mark.parametrize('flavour', FLAVOURS)
@given(array=ARRAYS, number=st.integers(-(2**40), 2**40), text=st.text(max_size=20))
def test_messages_come_back_as_they_were(flavour, array, number, text):
    back = unpack(pack({'a': array, 'n': {'x': [number, text, None]}}, flavour))
    np.testing.assert_array_equal(back['a'], array)
    assert back['a'].dtype == array.dtype
    assert back['n'] == {'x': [number, text, None]}


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_modalities_come_back(flavour):
    sent = Modality([0, 1], ['a', 'b'], [] if flavour == 'n1.5' else [{'rep': 'RELATIVE', 'state_key': None}])
    assert unpack(pack(sent, flavour)) == sent


def test_the_bytes_are_those_of_msgpack_numpy():
    """As NVIDIA's N1.7 was seen to write them."""
    array = np.arange(2, dtype='<f4').reshape(1, 1, 2)
    wanted = {b'nd': True, b'type': '<f4', b'kind': b'', b'shape': [1, 1, 2], b'data': array.tobytes()}
    assert pack(array, 'n1.7') == msgpack.packb(wanted)


@given(st.binary(max_size=200))
def test_garbage_is_a_wire_error_or_a_harmless_value(data):
    with contextlib.suppress(WireError):
        unpack(data)


@pytest.mark.parametrize(
    'message',
    [
        {b'nd': True, b'type': '|O', b'kind': b'O', b'shape': [1], b'data': b'\x80\x04N.'},
        {b'nd': True, b'type': '<f4', b'kind': b'', b'shape': [7], b'data': b'1234'},
        {'__ndarray_class__': True, 'as_npy': b'\x93NUMPY nothing'},
        {'__ModalityConfig__': True, 'as_json': {'modality_keys': 3}},
    ],
)
def test_arrays_of_objects_and_broken_ones_are_refused(message):
    with pytest.raises(WireError):
        unpack(msgpack.packb(message))
    with pytest.raises(WireError):
        pack(np.array([object()]), 'n1.7')


class Model:
    """A model with the rows of an embodiment, that remembers what it was asked."""

    def __init__(self, embodiment, **changes) -> None:
        self.modality = {
            'video': Modality([0], [camera.name for camera in embodiment.cameras]), 'state': Modality([0], list(embodiment.state_slices)),
            'action': Modality(list(range(16)), list(embodiment.action_slices)), 'language': Modality([0], [embodiment.language]), **changes,
        }  # fmt: skip
        self.asked, self.resets = [], 0

    def modalities(self):
        return self.modality

    def get_action(self, observation):
        self.asked.append(observation)
        return {
            name: np.full((1, 16, size), 0.5, np.float32)
            for name, size in (('delta_tcp_position', 3), ('delta_tcp_orientation', 3), ('gripper_command', 1))
        }

    def reset(self):
        self.resets += 1


@pytest.fixture
def serve(loopback):
    """Serves a model on an address of its own; gives host and port."""
    stop, threads = threading.Event(), []

    def start(model, port=5601, **options):
        server = Server(model, loopback, port, **options)
        threads.append(threading.Thread(target=server.run, args=(lambda: not stop.is_set(),)))
        threads[-1].start()
        return loopback, port

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def observation(embodiment):
    images = {camera.name: np.full((camera.height, camera.width, 3), 7, np.uint8) for camera in embodiment.cameras}
    return Observation(0, np.arange(embodiment.state_size, dtype=float), images, 'put the cube away')


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_a_policy_behind_each_flavour(serve, embodiment, flavour):
    model = Model(embodiment)
    policy = RemotePolicy(Client(*serve(model, flavour=flavour), flavour), embodiment, flavour)
    assert policy.spec.horizon == 16
    action = policy.infer(observation(embodiment))
    assert {name: values.shape for name, values in action.items()} == {
        'delta_tcp_position': (16, 3),
        'delta_tcp_orientation': (16, 3),
        'gripper_command': (16, 1),
    }
    seen = model.asked[0]
    if flavour == 'n1.5':
        assert seen['video.zed_camera'].shape == (1, 480, 640, 3)
        assert seen['annotation.human.action.task_description'] == ['put the cube away']
        np.testing.assert_array_equal(seen['state.tcp_pose'], np.arange(13, 20)[None])
    else:
        assert seen['video']['zed_camera'].shape == (1, 1, 256, 341, 3)
        assert seen['language'] == {'annotation.human.action.task_description': [['put the cube away']]}
        assert seen['state']['tcp_pose'].dtype == np.float32
        policy.reset()
        assert model.resets == 1
    policy.close()


@pytest.mark.parametrize(
    ('kind', 'modality', 'text'),
    [
        ('video', Modality([0], ['wrist']), 'video wrist is not among zed_camera'),
        ('video', Modality([-15, 0], ['zed_camera']), r'video wants the steps \[-15, 0\]'),
        ('state', Modality([0], ['joint_position']), 'state joint_position is not among'),
        ('action', Modality(list(range(16)), ['delta_tcp_position', 'gripper_command']), 'action delta_tcp_orientation is missing'),
        ('action', Modality([1, 2], ['eef_9d']), r'action gives the steps \[1, 2\]'),
        (
            'action',
            Modality([0], ['delta_tcp_position', 'delta_tcp_orientation'], [{'rep': 'RELATIVE'}] * 2),
            'delta_tcp_position is relative to the state',
        ),
        ('language', Modality([0], ['task']), 'language task is not among annotation.human'),
    ],
)
def test_a_model_of_other_rows_is_refused_by_name(serve, embodiment, kind, modality, text):
    with pytest.raises(PolicyError, match=f'does not fit the embodiment ur5e_robotiq_zed: .*{text}'):
        RemotePolicy(Client(*serve(Model(embodiment, **{kind: modality})), 'n1.7'), embodiment)


def test_poses_relative_to_the_state_fit_an_embodiment_with_a_pose():
    embodiment = load_embodiment('ur5e_robotiq_zed_9d')
    model = Model(
        embodiment,
        state=Modality([0], ['eef_9d', 'gripper_state']),
        action=Modality(list(range(40)), ['eef_9d', 'gripper_command'], [{'rep': 'RELATIVE'}, {'rep': 'ABSOLUTE'}]),
    )
    assert mismatches(model.modality, embodiment) == []


def test_a_dead_host_is_given_up_and_may_come_back(serve, embodiment, loopback):
    client = Client(loopback, 5601, 'n1.7', timeout_s=0.2)
    for _ in range(2):
        with pytest.raises(PolicyError, match=r'gave no answer for 0\.2 s'):
            client.request('ping')
    serve(Model(embodiment))
    assert client.request('ping')['status'] == 'ok'
    client.close()


def test_a_token_is_asked_for_and_kill_needs_one(serve, embodiment):
    host, port = serve(Model(embodiment), token='secret')
    with pytest.raises(PolicyError, match='Invalid API token'):
        Client(host, port, 'n1.7', token='guess').request('ping')
    assert Client(host, port, 'n1.7', token='secret').request('kill') is None
    open_host = serve(Model(embodiment), port=5602)
    with pytest.raises(PolicyError, match='--api-token'):
        Client(*open_host, 'n1.7').request('kill')


def test_what_a_server_cannot_do_is_told_and_it_goes_on(serve, embodiment):
    model = Model(embodiment)
    model.get_action = lambda observation: 1 / 0
    client = Client(*serve(model), 'n1.7')
    for endpoint, data, text in (
        ('dance', None, 'Unknown endpoint: dance'),
        ('get_action', None, 'needs data'),
        ('get_action', {}, 'ZeroDivisionError'),
    ):
        with pytest.raises(PolicyError, match=text):
            client.request(endpoint, data)
    assert client.request('ping')['status'] == 'ok'


class Strange:
    """Something else that listens on the port."""

    def __init__(self, host, reply) -> None:
        self.socket = zmq.Context.instance().socket(zmq.REP)
        self.socket.bind(f'tcp://{host}:5601')
        self.reply = reply
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        self.socket.recv()
        self.socket.send(self.reply)
        self.socket.close(linger=200)


@pytest.mark.parametrize(
    ('reply', 'text'),
    [(b'\xc1 nothing', 'is no GR00T server'), (msgpack.packb([1]), 'does not tell its modalities'), (bytes(65 << 20), 'gave no answer')],
)
def test_something_else_on_the_port(embodiment, loopback, reply, text):
    strange = Strange(loopback, reply)
    with pytest.raises(PolicyError, match=text):
        RemotePolicy(Client(loopback, 5601, 'n1.7', timeout_s=1.0), embodiment)
    strange.thread.join()


def test_an_address_that_is_taken_is_told(serve, embodiment):
    from groot_ros.errors import GrootRosError

    host, port = serve(Model(embodiment))
    with pytest.raises(GrootRosError, match='choose another --port'):
        Server(Model(embodiment), host, port)


def test_a_replay_behind_the_wire_is_evaluated_as_the_recording(converted, loopback, capsys, tmp_path, embodiment):
    """The whole way: command line, wire, backend; a replay makes no error but that of float32."""
    stop = threading.Event()
    times = iter(range(10**6))
    policy = ReplayPolicy(converted, 0, embodiment, horizon=8)
    backend = LocalBackend(policy, embodiment, clock_ns=lambda: round(next(times) * 4 / policy.fps * 1e9))
    server = Server(backend, loopback, 5601)
    thread = threading.Thread(target=server.run, args=(lambda: not stop.is_set(),))
    thread.start()
    try:
        arguments = ['evaluate', str(converted), '--host', loopback, '--port', '5601', '--every', '4', '--json', str(tmp_path / 'errors.json')]
        assert main(arguments) == 0
    finally:
        stop.set()
        thread.join()
    errors = json.loads((tmp_path / 'errors.json').read_text())
    assert errors['chunks'] == 6
    assert set(errors['keys']) == {'delta_tcp_position', 'delta_tcp_orientation', 'gripper_command'}
    assert all(found['mae'] < 1e-7 and len(found['mae_by_step']) == 8 for found in errors['keys'].values())
    assert 'delta_tcp_position' in capsys.readouterr().out


def test_the_rows_of_another_robot_are_refused_by_evaluate(converted, serve):
    model = Model(load_embodiment('ur5e_robotiq_zed'))
    host, port = serve(model)
    assert main(['evaluate', str(converted), '--host', host, '--port', str(port), '--episodes', '7']) == 1
