# SPDX-License-Identifier: Apache-2.0
"""GR00T's inference protocol: its versions, client and server, and which models are refused."""

import contextlib
import importlib
import json
import re
import socket
import threading

import cv2
import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from groot_ros.cli.main import main
from groot_ros.dataset.convert import convert
from groot_ros.dataset.meta import DatasetMeta, column_to_array
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import PolicyError
from groot_ros.geometry import pose_to_eef_9d, rotvec_from_pose
from groot_ros.inference import port_guard
from groot_ros.inference.backends import GR00T_VERSIONS
from groot_ros.inference.client import Client
from groot_ros.inference.protocol import Modality, ProtocolError, pack, unpack
from groot_ros.inference.server import Server
from groot_ros.policies.builtin_policies import HoldPolicy
from groot_ros.policies.evaluate import evaluate
from groot_ros.policies.evaluation_plot import write_evaluation_plot
from groot_ros.policies.factory import PolicyChoice, make_policy
from groot_ros.policies.local_backend import LocalBackend
from groot_ros.policies.own_policies import load_own_policy, own_policies
from groot_ros.policies.policy import Observation, PolicySpec
from groot_ros.policies.remote_policy import RemotePolicy, mismatches
from groot_ros.policies.replay_policy import ReplayPolicy

ARRAYS = hnp.arrays(
    st.sampled_from([np.uint8, np.float32, np.float64, np.int64, np.bool_]),
    hnp.array_shapes(max_dims=4, max_side=5),
)


@pytest.mark.parametrize('gr00t_version', GR00T_VERSIONS)
@given(array=ARRAYS, number=st.integers(-(2**40), 2**40), text=st.text(max_size=20))
def test_messages_come_back_as_they_were(gr00t_version, array, number, text):
    back = unpack(pack({'a': array, 'n': {'x': [number, text, None]}}, gr00t_version))
    np.testing.assert_array_equal(back['a'], array)
    assert back['a'].dtype == array.dtype
    assert back['n'] == {'x': [number, text, None]}


@pytest.mark.parametrize('gr00t_version', GR00T_VERSIONS)
def test_modalities_come_back(gr00t_version):
    sent = Modality(
        [0, 1], ['a', 'b'], [] if gr00t_version == 'n1.5' else [{'rep': 'RELATIVE', 'state_key': None}]
    )
    assert unpack(pack(sent, gr00t_version)) == sent


def test_the_bytes_are_those_of_msgpack_numpy():
    """As NVIDIA's N1.7 was seen to write them."""
    array = np.arange(2, dtype='<f4').reshape(1, 1, 2)
    wanted = {b'nd': True, b'type': '<f4', b'kind': b'', b'shape': [1, 1, 2], b'data': array.tobytes()}
    assert pack(array, 'n1.7') == msgpack.packb(wanted)


@given(st.binary(max_size=200))
def test_garbage_is_a_wire_error_or_a_harmless_value(data):
    with contextlib.suppress(ProtocolError):
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
    with pytest.raises(ProtocolError):
        unpack(msgpack.packb(message))
    with pytest.raises(ProtocolError):
        pack(np.array([object()]), 'n1.7')


def many(item, count=200_000):
    """A few bytes for each list or map, a hundred in memory."""
    inner = b'\xdc' + (10_000).to_bytes(2, 'big') + item * 10_000
    return b'\xdc' + (count // 10_000).to_bytes(2, 'big') + inner * (count // 10_000)


def npy(header):
    text = header.encode().ljust(117) + b'\n'
    return b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (many(b'\x90'), 'more than 100000 items'),
        (many(b'\x80'), 'more than 100000 items'),
        (b'\xdd\xff\xff\xff\xff', 'exceeds|incomplete'),
        (b'\x91' * 100_000, 'StackError|incomplete'),
        (msgpack.packb(msgpack.ExtType(1, b'x')), 'ext'),
        (msgpack.packb('x' * 200_000), 'exceeds'),
        (msgpack.packb({b'nd': True, b'type': '<f8', b'shape': [10**12], b'data': b''}), 'the shape'),
        (msgpack.packb({b'nd': True, b'type': '<f8', b'shape': [-1], b'data': bytes(8)}), 'the shape'),
        (msgpack.packb({b'nd': True, b'type': '<f8', b'shape': [[8]], b'data': bytes(8)}), 'the shape'),
        (msgpack.packb({b'nd': True, b'type': '|V8', b'shape': [1], b'data': bytes(8)}), 'is refused'),
        (
            msgpack.packb(
                {
                    '__ndarray_class__': True,
                    'as_npy': npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000,)}"),
                }
            ),
            'the shape',
        ),
        (msgpack.packb({'__ModalityConfig__': True, 'as_json': '[' * 90_000}), 'not a message'),
    ],
)
def test_few_bytes_never_become_much_memory(data, reason):
    with pytest.raises(ProtocolError, match=reason):
        unpack(data)


class Model:
    """A model with the rows of an embodiment, that keeps its observations."""

    def __init__(self, embodiment, **changes) -> None:
        self.modality = {
            'video': Modality([0], [camera.name for camera in embodiment.cameras]),
            'state': Modality([0], list(embodiment.state_slices)),
            'action': Modality(list(range(16)), list(embodiment.action_slices)),
            'language': Modality([0], [embodiment.language]),
            **changes,
        }
        self.name = 'model'
        self.observations = []
        self.options = []
        self.resets = 0
        self.info = {}

    def modalities(self):
        return self.modality

    def extra_info(self):
        return self.info

    def get_action(self, observation, options):
        self.observations.append(observation)
        self.options.append(options)
        sizes = (('delta_tcp_position', 3), ('delta_tcp_orientation', 3), ('gripper_command', 1))
        action = {name: np.full((1, 16, size), 0.5, np.float32) for name, size in sizes}
        return action, {'chunk': len(self.observations)}

    def reset(self):
        self.resets += 1


@pytest.fixture
def serve(loopback):
    """Serves a model on an address of its own; gives host and port."""
    stop = threading.Event()
    threads = []

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
    images = {
        camera.name: np.full((camera.height, camera.width, 3), 7, np.uint8) for camera in embodiment.cameras
    }
    return Observation(0, np.arange(embodiment.state_size, dtype=float), images, 'put the cube away')


@pytest.mark.parametrize('gr00t_version', GR00T_VERSIONS)
def test_a_policy_is_served_as_each_gr00t_version(serve, embodiment, gr00t_version):
    model = Model(embodiment)
    policy = RemotePolicy(
        Client(*serve(model, gr00t_version=gr00t_version), gr00t_version), embodiment, gr00t_version
    )
    assert policy.spec.horizon == 16
    action = policy.infer(observation(embodiment))
    assert {name: values.shape for name, values in action.items()} == {
        'delta_tcp_position': (16, 3),
        'delta_tcp_orientation': (16, 3),
        'gripper_command': (16, 1),
    }
    seen = model.observations[0]
    assert seen['video']['zed_camera'].shape == (
        (1, 1, 480, 640, 3) if gr00t_version == 'n1.5' else (1, 1, 256, 341, 3)
    )
    assert seen['video']['zed_camera'].dtype == np.uint8
    assert seen['language'] == {'annotation.human.action.task_description': [['put the cube away']]}
    assert seen['state']['tcp_pose'].dtype == np.float32
    np.testing.assert_array_equal(seen['state']['tcp_pose'], np.arange(13, 20)[None, None])
    if gr00t_version != 'n1.5':
        policy.reset()
        assert model.resets == 1
    policy.close()


@pytest.mark.parametrize(
    ('kind', 'modality', 'text'),
    [
        ('video', Modality([0], ['wrist']), 'video wrist is not among zed_camera'),
        ('video', Modality([-90, 0], ['zed_camera']), r'video wants the steps \[-90, 0\]'),
        ('state', Modality([0], ['joint_position']), 'state joint_position is not among'),
        (
            'action',
            Modality(list(range(16)), ['delta_tcp_position', 'gripper_command']),
            'action delta_tcp_orientation is missing',
        ),
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
        action=Modality(
            list(range(40)), ['eef_9d', 'gripper_command'], [{'rep': 'RELATIVE'}, {'rep': 'ABSOLUTE'}]
        ),
    )
    assert mismatches(model.modality, embodiment) == []


def test_a_model_that_looks_back_sees_the_rows_before_the_newest(serve, embodiment):
    model = Model(embodiment, video=Modality([-15, 0], ['zed_camera']), state=Modality([-1, 0], ['tcp_pose']))
    policy = RemotePolicy(Client(*serve(model), 'n1.7'), embodiment)
    assert policy.spec.observation_indices == (-15, -1, 0)
    newest = observation(embodiment)
    newest.earlier = {step: observation(embodiment) for step in (-15, -1)}
    newest.earlier[-15].images['zed_camera'][:] = 200
    newest.earlier[-1].state[:] = -1.0
    policy.infer(newest)
    seen = model.observations[0]
    assert [int(image[0, 0, 0]) for image in seen['video']['zed_camera'][0]] == [200, 7]
    np.testing.assert_array_equal(seen['state']['tcp_pose'][0], [np.full(7, -1.0), np.arange(13, 20)])
    policy.close()


def test_images_have_the_size_that_the_server_says(serve, embodiment):
    model = Model(embodiment)
    model.info = {'image_sizes': {'zed_camera': [640, 480]}}
    policy = RemotePolicy(Client(*serve(model), 'n1.7'), embodiment)
    policy.infer(observation(embodiment))
    assert model.observations[0]['video']['zed_camera'].shape == (1, 1, 480, 640, 3)
    policy.close()


def test_a_server_that_continues_chunks_receives_the_one_being_executed(serve, embodiment):
    model = Model(embodiment)
    model.info = {'real_time_chunking': True}
    policy = RemotePolicy(Client(*serve(model), 'n1.7'), embodiment)
    assert policy.spec.continues
    seen = observation(embodiment)
    policy.infer(seen)
    seen.tick_ns = 200_000_000
    seen.follows_ns = 0
    seen.elapsed_steps = 6
    seen.frozen_steps = 3
    policy.infer(seen)
    seen.follows_ns = 12345  # whose answer never came
    policy.infer(seen)
    assert model.options == [None, {'follows': {'chunk': 1, 'elapsed_steps': 6, 'frozen_steps': 3}}, None]
    policy.close()


def test_a_dead_host_is_given_up_and_may_come_back(serve, embodiment, loopback, eventually):
    client = Client(loopback, 5601, 'n1.7', timeout_s=0.2)
    for _ in range(2):
        with pytest.raises(PolicyError, match=r'gave no answer for 0\.2 s'):
            client.request('ping')
    serve(Model(embodiment))

    def answers():
        with contextlib.suppress(PolicyError):
            return client.request('ping')['status'] == 'ok'

    assert eventually(answers)
    client.close()


def test_a_token_is_asked_for_and_kill_needs_one(serve, embodiment):
    host, port = serve(Model(embodiment), token='secret')
    with pytest.raises(PolicyError, match='Invalid API token'):
        Client(host, port, 'n1.7', token='guess').request('ping')
    assert Client(host, port, 'n1.7', token='secret').request('kill') is None
    open_host = serve(Model(embodiment), port=5602)
    with pytest.raises(PolicyError, match='GROOT_ROS_API_TOKEN'):
        Client(*open_host, 'n1.7').request('kill')


def test_the_data_of_a_request_without_the_token_are_not_decoded(embodiment, loopback, monkeypatch):
    server = Server(Model(embodiment), loopback, 0, token='gehe\u00efm')
    monkeypatch.setattr('groot_ros.inference.server.unpack', lambda data: pytest.fail('decoded'))
    for token in ('guess', '\u00e9', None):
        request = b'\x83' + msgpack.packb('data') + many(b'\x90')
        request += msgpack.packb('endpoint') + msgpack.packb('get_action')
        request += msgpack.packb('api_token') + msgpack.packb(token)
        assert unpack(server.answer(request)) == {'error': 'Unauthorized: Invalid API token'}
    assert b'not a message' in server.answer(b'\x81' + msgpack.packb('api_token') + many(b'\x90'))
    server.run(lambda: False)


def test_every_honest_request_is_answered_while_others_misbehave(serve, embodiment):
    """Messages of several parts ended the server once; a REP socket loses its turn by them."""
    host, port = serve(Model(embodiment), token='secret')
    address = f'tcp://{host}:{port}'
    honest = Client(host, port, 'n1.7', token='secret', timeout_s=20.0)
    context = zmq.Context.instance()
    sockets = []
    for number in range(20):
        for kind, parts in (
            (zmq.REQ, [b'a', b'b']),
            (zmq.DEALER, [b'no delimiter']),
            (zmq.DEALER, [b'', b'']),
            (zmq.DEALER, [b'', b'\xc1']),
            (zmq.DEALER, [b'', many(b'\x80')]),
            (zmq.PUSH, [b'another pattern']),
        ):
            stranger = context.socket(kind)
            stranger.setsockopt(zmq.LINGER, 0)
            stranger.connect(address)
            stranger.send_multipart(parts)
            sockets.append(stranger)
        with socket.create_connection((host, port)) as garbage:
            garbage.sendall(bytes(range(number, 200)))
        assert honest.request('ping')['status'] == 'ok'
    assert unpack(sockets[0].recv()) == {'error': 'a request is one message part of a REQ socket'}
    for stranger in sockets:
        stranger.close()
    honest.close()


def zmtp(sock):
    """The beginning of a connection of ZeroMQ, as a DEALER."""
    sock.sendall(b'\xff' + bytes(8) + b'\x7f\x03\x00' + b'NULL'.ljust(20, b'\0') + bytes(32))
    ready = b'\x05READY\x0bSocket-Type' + (6).to_bytes(4, 'big') + b'DEALER'
    sock.sendall(b'\x04' + bytes([len(ready)]) + ready)


def hangs_up(sock, data, times):
    """Whether the peer hangs up while it gets the same bytes again and again."""
    sock.settimeout(20.0)
    try:
        for _ in range(times):
            sock.sendall(data)
        while sock.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


PART = b'\x03' + (1 << 20).to_bytes(8, 'big') + bytes(1 << 20)


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (PART, 'it sent a message of more than 8 parts'),
        (b'\x01\x00', 'it sent a message of more than 8 parts'),
        (b'\x03' + (65 << 20).to_bytes(8, 'big'), 'it sent a message of more than 64 MiB'),
        (b'\x06' + (1 << 62).to_bytes(8, 'big'), 'it sent a command of more than 64 KiB'),
    ],
)
def test_a_message_of_endless_parts_is_cut_off(serve, embodiment, capfd, data, reason):
    """ZeroMQ itself kept 2 GB of one message, and went on."""
    host, port = serve(Model(embodiment), token='secret')
    honest = Client(host, port, 'n1.7', token='secret', timeout_s=20.0)
    assert honest.request('ping')['status'] == 'ok'
    for _ in range(2):
        with socket.create_connection((host, port)) as stranger:
            zmtp(stranger)
            assert hangs_up(stranger, data, 2000 if data is PART else 20)
    assert honest.request('ping')['status'] == 'ok'
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith('The connection of 127.0.0.1:')
    assert reason in told[0]
    honest.close()


def test_what_does_not_speak_zeromq_is_cut_off(serve, embodiment, capfd):
    host, port = serve(Model(embodiment))
    with socket.create_connection((host, port)) as stranger:
        assert hangs_up(stranger, b'GET / HTTP/1.1\r\n\r\n', 1)
    assert 'it does not speak ZeroMQ 4 (ZMTP 3).' in capfd.readouterr().err


def test_many_peers_with_half_a_message_each_hold_a_bounded_memory(serve, embodiment, capfd, monkeypatch):
    """Those that hold most are cut off; the honest one is answered all the time."""
    monkeypatch.setattr(port_guard, '_MAX_HELD_BYTES', 8 << 20)
    host, port = serve(Model(embodiment))
    honest = Client(host, port, 'n1.7', timeout_s=20.0)
    head = b'\x02' + (32 << 20).to_bytes(8, 'big')
    strangers = [socket.create_connection((host, port)) for _ in range(6)]
    for stranger in strangers:
        zmtp(stranger)
        stranger.sendall(head + bytes(1 << 20))
    assert honest.request('ping')['status'] == 'ok'
    assert hangs_up(strangers[0], bytes(1 << 20), 6)
    assert honest.request('ping')['status'] == 'ok'
    assert 'unanswered messages have more than 8 MiB' in capfd.readouterr().err
    for stranger in strangers:
        stranger.close()
    honest.close()


def test_the_peer_that_is_silent_for_longest_makes_room(serve, embodiment, capfd):
    host, port = serve(Model(embodiment))
    strangers = [socket.create_connection((host, port)) for _ in range(40)]
    honest = Client(host, port, 'n1.7', timeout_s=20.0)
    assert honest.request('ping')['status'] == 'ok'
    assert hangs_up(strangers[0], b'', 0)
    assert 'more than 32 peers are connected' in capfd.readouterr().err
    for stranger in strangers:
        stranger.close()
    honest.close()


def test_a_server_leaves_no_thread_or_socket_behind(serve, embodiment, loopback):
    before = set(threading.enumerate())
    server = Server(Model(embodiment), loopback, 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    client = Client(loopback, server.port, 'n1.7', timeout_s=20.0)
    assert client.request('ping')['status'] == 'ok'
    server.running = False
    thread.join()
    client.close()
    assert set(threading.enumerate()) <= before
    Server(Model(embodiment), loopback, server.port).run(lambda: False)


def wire_observation(**changes):
    """An observation of N1.6 and N1.7 as the Model wants it; `changes` replace values by their key."""
    state = {name: np.zeros((1, 1, size), np.float32) for name, size in STATE_SIZES.items()}
    nested = {
        'video': {'zed_camera': np.zeros((1, 1, 48, 64, 3), np.uint8)},
        'state': state,
        'language': {LANGUAGE: [['go']]},
    }
    for values in nested.values():
        values |= {key: changes[key] for key in changes if key in values}
    return {kind: values for kind, values in nested.items() if changes.get(kind, values) is not None}


STATE_SIZES = {'joint_positions': 6, 'joint_velocities': 6, 'gripper_state': 1, 'tcp_pose': 7}
LANGUAGE = 'annotation.human.action.task_description'


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'tcp_pose': np.zeros((1, 1, 7))}, 'state tcp_pose is float64, and an array of float32 is needed'),
        ({'tcp_pose': np.zeros((1, 7), np.float32)}, r'state tcp_pose has the shape \(1, 7\)'),
        ({'tcp_pose': np.zeros((1, 2, 7), np.float32)}, 'with 1 steps is needed'),
        ({'tcp_pose': [[[0.0] * 7]]}, 'state tcp_pose is list'),
        ({'zed_camera': np.zeros((1, 1, 48, 64, 3), np.float32)}, 'video zed_camera is float32'),
        ({'zed_camera': np.zeros((1, 1, 48, 64, 4), np.uint8)}, 'has 4 channels'),
        ({'zed_camera': np.zeros((2, 1, 48, 64, 3), np.uint8)}, 'batches of different sizes'),
        ({'language': None}, 'has no map language'),
        ({LANGUAGE: 'go'}, 'is no list of lists with 1 texts'),
        ({LANGUAGE: [['go', 'on']]}, 'is no list of lists with 1 texts'),
        ({LANGUAGE: [[7]]}, 'something that is no text'),
    ],
)
@pytest.mark.parametrize('gr00t_version', ['n1.6', 'n1.7'])
def test_observations_that_nvidias_servers_refuse_are_refused(
    serve, embodiment, changes, text, gr00t_version
):
    model = Model(embodiment)
    client = Client(*serve(model, gr00t_version=gr00t_version), gr00t_version)
    with pytest.raises(PolicyError, match=text):
        client.request('get_action', {'observation': wire_observation(**changes)})
    assert model.observations == []
    more = {**wire_observation(), 'more': 1}
    assert len(client.request('get_action', {'observation': more})) == 2
    client.close()


def flat_observation(**changes):
    state = {f'state.{name}': np.zeros((1, size)) for name, size in STATE_SIZES.items()}
    flat = {'video.zed_camera': np.zeros((1, 48, 64, 3), np.uint8), **state, LANGUAGE: ['go'], **changes}
    return {key: value for key, value in flat.items() if value is not None}


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'video.zed_camera': np.zeros((1, 48, 64, 3))}, 'video zed_camera is float64'),
        ({'state.tcp_pose': np.zeros((1, 7), int)}, 'state tcp_pose is int64'),
        ({'state.tcp_pose': None}, 'has no state tcp_pose'),
        ({LANGUAGE: None}, f'has no language {LANGUAGE}'),
    ],
)
def test_flat_observations_of_n1_5_are_checked_too(serve, embodiment, changes, text):
    client = Client(*serve(Model(embodiment), gr00t_version='n1.5'), 'n1.5')
    with pytest.raises(PolicyError, match=text):
        client.request('get_action', flat_observation(**changes))
    assert set(client.request('get_action', flat_observation())) == {
        'action.delta_tcp_position',
        'action.delta_tcp_orientation',
        'action.gripper_command',
    }
    client.close()


@pytest.mark.parametrize('gr00t_version', GR00T_VERSIONS)
def test_the_modalities_are_those_of_nvidias_servers_unless_our_client_asks(serve, embodiment, gr00t_version):
    model = Model(embodiment)
    model.info = {'image_sizes': {'zed_camera': [640, 480]}}
    client = Client(*serve(model, gr00t_version=gr00t_version), gr00t_version)
    found = client.request('get_modality_config')
    assert set(found) == {'video', 'state', 'action', 'language'}
    prefix = 'state.' if gr00t_version == 'n1.5' else ''
    assert found['state'].keys == [f'{prefix}{name}' for name in STATE_SIZES]
    assert found['language'].keys == [LANGUAGE]
    assert 'image_sizes' in client.request('get_modality_config', {'extra_info': True})
    client.close()


@pytest.mark.parametrize('server', GR00T_VERSIONS)
@pytest.mark.parametrize('ours', GR00T_VERSIONS)
def test_a_client_of_another_version_is_told_which_one_answered(serve, embodiment, server, ours):
    if ours == server:
        return
    where = serve(Model(embodiment), gr00t_version=server)
    with pytest.raises(PolicyError, match=f'answers as GR00T {server.upper()}, and this client speaks'):
        RemotePolicy(Client(*where, ours), embodiment, ours)
    data = flat_observation() if ours == 'n1.5' else {'observation': wire_observation()}
    client = Client(*where, ours)
    with pytest.raises(PolicyError, match=f'this server answers as GR00T {server.upper()}, and the request'):
        client.request('get_action', data)
    client.close()


def test_an_answer_that_cannot_be_sent_is_an_error_and_the_server_goes_on(serve, embodiment):
    model = Model(embodiment)
    model.get_action = lambda observation, options: ({'x': object()}, {})
    client = Client(*serve(model), 'n1.7')
    with pytest.raises(PolicyError, match='object cannot be sent'):
        client.request('get_action', {'observation': wire_observation()})
    assert client.request('ping')['status'] == 'ok'
    client.close()


def test_a_request_that_fails_is_reported_and_the_server_goes_on(serve, embodiment):
    model = Model(embodiment)
    model.get_action = lambda observation, options: 1 / 0
    client = Client(*serve(model), 'n1.7')
    for endpoint, data, text in (
        ('dance', None, 'Unknown endpoint: dance'),
        ('get_action', None, 'needs data'),
        ('get_action', {}, 'the observation has no map video'),
        ('get_action', {'observation': wire_observation()}, 'ZeroDivisionError'),
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
    [
        (b'\xc1 nothing', 'is not a GR00T model server'),
        (msgpack.packb([1]), 'does not report its modalities'),
        (bytes(65 << 20), 'gave no answer'),
    ],
)
def test_something_else_on_the_port(embodiment, loopback, reply, text):
    strange = Strange(loopback, reply)
    with pytest.raises(PolicyError, match=text):
        RemotePolicy(Client(loopback, 5601, 'n1.7', timeout_s=1.0), embodiment)
    strange.thread.join()


@pytest.mark.parametrize(
    ('info', 'text'),
    [
        ({'image_sizes': None}, 'image_sizes'),
        ({'image_sizes': {'zed_camera': [0, 0]}}, 'image_sizes.zed_camera'),
        ({'image_sizes': {'zed_camera': [100_000, 100_000]}}, 'image_sizes.zed_camera'),
        ({'image_sizes': {'zed_camera': ['a', 'b']}}, 'image_sizes.zed_camera'),
        ({'image_sizes': {'zed_camera': [4000, 4000], 3: [1, 1]}}, 'image_sizes.3'),
        ({'image_sizes': {'zed_camera': [4096, 4096]}}, '50 MB of images'),
        ({'real_time_chunking': 'yes'}, 'real_time_chunking'),
    ],
)
def test_what_a_server_says_about_itself_is_checked(serve, embodiment, info, text):
    model = Model(embodiment)
    model.info = info
    with pytest.raises(PolicyError, match=text):
        RemotePolicy(Client(*serve(model), 'n1.7'), embodiment)


@pytest.mark.parametrize(
    'modality',
    [
        Modality([0, 0], ['zed_camera']),
        Modality([10**9], ['zed_camera']),
        Modality(['0'], ['zed_camera']),
        Modality([True], ['zed_camera']),
        Modality([0], [3]),
        Modality([0], ['zed_camera'] * 2),
        Modality([0], ['a\nb']),
        Modality([0], ['zed_camera'], ['relative']),
        Modality(list(range(1001)), ['zed_camera']),
    ],
)
def test_modalities_of_wrong_types_are_refused(modality):
    with pytest.raises(ProtocolError):
        unpack(pack(modality, 'n1.7'))


@pytest.mark.parametrize(
    'values',
    [
        np.zeros((2, 16, 3)), np.zeros((0, 16, 3)), np.zeros((1, 1, 16, 3)), np.zeros(()),
        np.zeros((5000, 3)), np.array(['a']), [[1.0]], 3, None,
    ],
)  # fmt: skip
def test_actions_of_other_forms_are_refused(serve, embodiment, values):
    model = Model(embodiment)
    policy = RemotePolicy(Client(*serve(model), 'n1.7'), embodiment)
    model.get_action = lambda *_: ({'delta_tcp_position': values}, {})
    with pytest.raises(PolicyError, match='The action delta_tcp_position came with the'):
        policy.infer(observation(embodiment))
    policy.close()


def test_the_reason_of_a_server_is_one_short_line(loopback):
    strange = Strange(loopback, msgpack.packb({'error': 'a\nb\x1b[31m' * 10_000}))
    with pytest.raises(PolicyError) as refused:
        Client(loopback, 5601, 'n1.7').request('ping')
    assert len(str(refused.value)) < 600
    assert str(refused.value).isprintable()
    strange.thread.join()


def test_the_token_goes_only_to_the_host_that_the_user_chose(embodiment, loopback, monkeypatch):
    monkeypatch.setenv('GROOT_ROS_API_TOKEN', 'secret')
    seen = []
    monkeypatch.setattr(
        'groot_ros.policies.factory.Client', lambda host, port, version, token, timeout_s: seen.append(token)
    )
    monkeypatch.setattr('groot_ros.policies.factory.RemotePolicy', lambda *_: None)
    for host in ('gpu', 'elsewhere', ''):
        make_policy(PolicyChoice('remote', host=host), embodiment, print, token_host='gpu')
    assert seen == ['secret', '', '']


@pytest.mark.parametrize('host', ['0.0.0.0', '*', '::', '192.168.1.5', 'gpu-machine', ''])
def test_other_machines_are_not_served_without_a_token(monkeypatch, capsys, host):
    monkeypatch.delenv('GROOT_ROS_API_TOKEN', raising=False)
    assert main(['serve', 'nowhere', '--host', host]) == 1
    assert '--insecure' in capsys.readouterr().err
    for arguments, token in ((['--insecure'], ''), ([], 'secret')):
        monkeypatch.setenv('GROOT_ROS_API_TOKEN', token)
        assert main(['serve', 'nowhere', '--host', host, *arguments]) == 1
        assert 'nowhere does not exist' in capsys.readouterr().err


def test_an_address_in_use_is_reported(serve, embodiment):
    from groot_ros.errors import GrootRosError

    host, port = serve(Model(embodiment))
    with pytest.raises(GrootRosError, match='choose another --port'):
        Server(Model(embodiment), host, port)


@pytest.mark.parametrize('gr00t_version', GR00T_VERSIONS)
def test_a_served_replay_is_evaluated_as_the_recording(
    converted, loopback, capsys, tmp_path, embodiment, gr00t_version
):
    """The whole way: command line, protocol, backend; a replay makes no error but that of float32.

    It goes by the time of the observations: by the clock it was worse than holding still.
    """
    stop = threading.Event()
    policy = ReplayPolicy(converted, 0, embodiment, horizon=8)
    server = Server(LocalBackend(policy, embodiment), loopback, 5601, gr00t_version)
    thread = threading.Thread(target=server.run, args=(lambda: not stop.is_set(),))
    thread.start()
    try:
        where = f'{loopback}:5601'
        arguments = [
            'evaluate',
            str(converted),
            '--policy',
            where,
            where,
            '--stride',
            '4',
            '--json',
            str(tmp_path / 'errors.json'),
        ]
        arguments += ['--plot', str(tmp_path / 'errors.png'), '--gr00t-version', gr00t_version]
        assert main(arguments) == 0
    finally:
        stop.set()
        thread.join()
    for errors in json.loads((tmp_path / 'errors.json').read_text()):
        assert errors['chunks'] == 6
        assert set(errors['keys']) == {'delta_tcp_position', 'delta_tcp_orientation', 'gripper_command'}
        assert all(
            found['mae'] < 1e-7 and len(found['mae_by_step']) == 8 for found in errors['keys'].values()
        )
    assert cv2.imread(str(tmp_path / 'errors.png')).shape[1] > 1000
    assert 'delta_tcp_position' in capsys.readouterr().out


OWN_POLICY = """
import numpy as np
from groot_ros.policies.policy import Policy, PolicySpec


class Reach(Policy):
    spec = PolicySpec('reach', 8, action_keys=('eef_6d', 'gripper_command'), observation_indices=(-2, 0))
    seen = []

    def __init__(self, embodiment):
        self.pose_part = embodiment.pose_part

    def infer(self, observation):
        self.seen.append(observation)
        target = [*observation.state[self.pose_part][:3], 0.0, np.pi, 0.0]
        return {'eef_6d': np.tile(target, (8, 1)), 'gripper_command': np.ones((8, 1))}


def broken(embodiment):
    raise OSError('no weights')
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An installed package with policies of its own: its module."""
    (tmp_path / 'lab_policies.py').write_text(OWN_POLICY)
    info = tmp_path / 'lab_policies-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: lab_policies\nVersion: 1.0\n')
    lines = ('[groot_ros.policies]', 'reach = lab_policies:Reach', 'broken = lab_policies:broken')
    (info / 'entry_points.txt').write_text('\n'.join((*lines, 'number = lab_policies:len', '')))
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module('lab_policies')


def test_a_policy_of_ones_own_is_served_with_what_it_sees(own, serve, embodiment):
    policy = load_own_policy(own_policies()['reach'], embodiment)
    remote = RemotePolicy(Client(*serve(LocalBackend(policy, embodiment)), 'n1.7'), embodiment)
    assert remote.spec.observation_indices == (-2, 0)
    now = observation(embodiment)
    now.tick_ns = 7_000_000_000
    now.earlier = {-2: observation(embodiment)}
    now.earlier[-2].state[:] = -1.0
    action = remote.infer(now)
    np.testing.assert_allclose(action['eef_6d'][0], [13, 14, 15, 0, np.pi, 0], rtol=1e-6)
    [seen] = own.Reach.seen
    assert (seen.tick_ns, seen.task) == (now.tick_ns, 'put the cube away')
    np.testing.assert_array_equal(seen.state, now.state)
    np.testing.assert_array_equal(seen.images['zed_camera'], now.images['zed_camera'])
    np.testing.assert_array_equal(seen.earlier[-2].state, now.earlier[-2].state)
    remote.close()


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('broken', r'The policy broken \(lab_policies:broken\) cannot be made: OSError: no weights'),
        ('number', 'The policy number .* cannot be made'),
        ('reech', 'the nearest is reach'),
    ],
)
def test_a_policy_of_ones_own_that_cannot_be_served_is_named(own, capsys, name, text):
    assert main(['serve', name]) == 1
    assert re.search(text, capsys.readouterr().err)


class Shifted(HoldPolicy):
    """Answers the poses of a recording that was made with a known truth, 3 mm off along z."""

    def __init__(self, embodiment, poses, key):
        super().__init__(embodiment, 8)
        self.spec = PolicySpec('shifted', 8)
        self._poses = poses
        self._key = key
        self._fps = embodiment.fps

    def infer(self, observation):
        row = round(observation.tick_ns / 1e9 * self._fps)
        poses = self._poses[row + 1 : row + 9] + np.array([0, 0, 3e-3, 0, 0, 0, 0])
        rotvecs = np.array([rotvec_from_pose(pose) for pose in poses])
        return {self._key: pose_to_eef_9d(poses) if self._key == 'eef_9d' else rotvecs}


@pytest.mark.parametrize('key', ['eef_9d', 'eef_6d'])
@pytest.mark.parametrize('name', ['ur5e_robotiq_zed', 'ur5e_robotiq_zed_9d'])
def test_poses_that_a_policy_answers_are_compared(tmp_path, bags, name, key):
    """Checkpoints that are relative to the state answer absolute poses, in datasets of deltas too."""
    embodiment = load_embodiment(name)
    convert([bags / 'episode_000001'], tmp_path / 'set', embodiment)
    states = column_to_array(DatasetMeta(tmp_path / 'set').rows(0), 'observation.state')
    policy = Shifted(embodiment, states[:, embodiment.pose_part], key)
    result = evaluate(policy, tmp_path / 'set', embodiment, [0], stride=4)
    errors = result.as_dict()['keys']
    assert set(errors) == {f'{key} position', f'{key} rotation'}
    assert errors[f'{key} position']['mae'] == pytest.approx(1e-3, rel=1e-3)
    assert errors[f'{key} rotation']['mae'] < 1e-4
    write_evaluation_plot([result], embodiment, tmp_path / 'errors.png')
    assert cv2.imread(str(tmp_path / 'errors.png')).shape[1] > 500


def test_an_answer_that_nothing_recorded_is_like_is_named(dataset, embodiment):
    policy = HoldPolicy(embodiment, 8)
    policy.infer = lambda observation: {'torso': np.zeros((8, 2))}
    result = evaluate(policy, dataset, embodiment, [0])
    assert 'not compared, because nothing like it was recorded: torso' in result.summary_lines()


def test_a_bag_is_evaluated_as_the_dataset_made_of_it(bags, serve, embodiment, tmp_path):
    host, port = serve(Model(embodiment))
    arguments = ['--policy', f'{host}:{port}', '--json', str(tmp_path / 'errors.json')]
    assert main(['evaluate', str(bags / 'episode_000001'), *arguments]) == 0
    (of_bag,) = json.loads((tmp_path / 'errors.json').read_text())
    convert([bags / 'episode_000001'], tmp_path / 'dataset', embodiment)
    assert main(['evaluate', str(tmp_path / 'dataset'), *arguments]) == 0
    assert json.loads((tmp_path / 'errors.json').read_text()) == [of_bag]
    assert of_bag['chunks'] > 0


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['nowhere'], 'nowhere does not exist'),
        (['DATASET', '--episodes', '7'], 'has no episode 7'),
        (['DATASET', '--embodiment', 'so101_dualcam'], 'has other rows than the embodiment so101_dualcam'),
        (['DATASET', '--policy', 'gpu'], 'gpu is neither the folder of a checkpoint'),
    ],
)
def test_what_cannot_be_evaluated_is_reported_before_the_policy_runs(converted, capsys, arguments, text):
    assert main(['evaluate', *(str(converted) if word == 'DATASET' else word for word in arguments)]) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(('option', 'lines'), [('--json', 0), ('--quiet', 0), (None, 1)])
def test_a_served_model_tells_its_address_to_people_or_programs(monkeypatch, capsys, option, lines):
    monkeypatch.setattr(Server, 'run', lambda self: self._guard.close(0.0))
    words = {'--json': ['--json', '-'], '--quiet': ['--quiet'], None: []}[option]
    assert main(['serve', 'hold', '--port', '0', *words]) == 0
    captured = capsys.readouterr()
    if option == '--json':
        told = json.loads(captured.out)
        assert (told['host'], told['model']) == ('127.0.0.1', 'hold')
        assert told['port'] > 0
        assert 'answers at 127.0.0.1' in captured.err
    else:
        assert captured.out.count('answers at 127.0.0.1') == lines
