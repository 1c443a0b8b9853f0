# SPDX-License-Identifier: Apache-2.0
"""The operator's page without ROS: its rules, what it shows, and its server with a browser's requests."""

import asyncio
import json
import math
import re
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from aiohttp import WSServerHandshakeError, web
from yarl import URL

from benchmark.page_harness import MARKUP, TOKEN, answer_to, with_server
from groot_ros.bags.message_types import HEADER_TYPE, IMAGE_TYPE, serialized, time_message, typestore
from groot_ros.errors import GrootRosError
from groot_ros.operator_page.access import Access, is_loopback
from groot_ros.operator_page.cameras import small_jpeg
from groot_ros.operator_page.commands import OrderError, parse_order
from groot_ros.operator_page.control import Controller
from groot_ros.operator_page.serving import ServerThread
from groot_ros.operator_page.view import LOST_S, Newest, arm_view, disk_view, policy_view, stream_view
from groot_ros.video.frame import VideoFrame

# Access


@pytest.mark.parametrize('host', ['127.0.0.1', '::1', 'localhost', '127.3.2.1'])
def test_loopback_needs_no_token(host):
    assert is_loopback(host)
    assert Access(host, '').knows('')


@pytest.mark.parametrize('host', ['0.0.0.0', '::', '192.168.1.2', 'robot'])
def test_any_other_address_needs_a_token_that_is_not_short(host):
    with pytest.raises(GrootRosError, match='GROOT_ROS_PAGE_TOKEN'):
        Access(host, '')
    with pytest.raises(GrootRosError, match='has 5 characters'):
        Access(host, '12345')
    assert not Access(host, TOKEN).knows('')


def test_a_session_is_given_for_the_token_only():
    access = Access('0.0.0.0', TOKEN)
    with pytest.raises(GrootRosError, match='The token is wrong'):
        access.log_in(TOKEN[:-1])
    assert access.knows(access.log_in(TOKEN))
    assert not access.knows(TOKEN)


@pytest.mark.parametrize('host', ['127.0.0.1:8090', 'localhost:1', '[::1]:8090'])
def test_names_of_this_machine_are_answered(host):
    assert Access('127.0.0.1', '').host_refusal(host) == ''


@pytest.mark.parametrize('host', ['evil.example', '192.168.1.2:8090', '', 'localhost.evil.example'])
def test_a_name_that_points_here_is_refused_without_a_token(host):
    assert 'this machine only' in Access('127.0.0.1', '').host_refusal(host)
    assert Access('127.0.0.1', TOKEN).host_refusal(host) == ''


def test_only_the_pages_own_origin_may_command():
    access = Access('127.0.0.1', '')
    assert access.origin_refusal('http://127.0.0.1:8090', '127.0.0.1:8090') == ''
    for origin in ('http://127.0.0.1:9', 'http://evil.example', 'null', '', None):
        assert 'may not command' in access.origin_refusal(origin, '127.0.0.1:8090')


# Who controls


def test_the_first_controls_the_second_looks_on_until_it_takes_over():
    controller = Controller()
    controller.connect('one', '10.0.0.1')
    controller.connect('two', '10.0.0.2')
    assert controller.refusal('one') == ''
    assert controller.refusal('two').startswith('10.0.0.1 controls')
    assert controller.take('two') == 'this page controls; 10.0.0.1 looks on now'
    assert 'looks on' in controller.refusal('one')
    assert controller.take('two') == 'this page controls already'


def test_a_reload_keeps_the_control_and_a_longer_absence_loses_it():
    now = [0.0]
    controller = Controller(clock=lambda: now[0])
    controller.connect('one', 'a')
    controller.connect('two', 'b')
    controller.disconnect('one')
    now[0] = 4.0
    assert controller.refusal('two')
    controller.connect('one', 'a')
    assert controller.refusal('one') == ''
    controller.disconnect('one')
    now[0] = 9.5
    assert controller.refusal('two') == ''
    controller.connect('one', 'a')
    assert controller.refusal('one')


# Orders


@pytest.mark.parametrize(
    ('text', 'number', 'reason'),
    [
        ('{', -1, 'is not JSON'),
        ('[1]', -1, 'The order is refused'),
        ('{"number": 3, "order": "fly"}', 3, 'fly'),
        ('{"number": 4, "order": "stop_arm", "more": 1}', 4, 'more'),
        ('{"number": 5, "order": "stop_episode", "succeeded": "perhaps"}', 5, 'succeeded'),
        ('{"order": "stop_arm"}', -1, 'number'),
        (json.dumps({'number': 6, 'order': 'start_episode', 'task': 'x' * 10_000}), 6, 'task'),
        ('[' * 100_000, -1, 'nested too deeply'),
    ],
)
def test_an_order_that_is_wrong_is_refused_in_one_sentence(text, number, reason):
    with pytest.raises(OrderError, match=reason) as refusal:
        parse_order(text)
    assert refusal.value.number == number
    assert '\n' not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_a_text_with_markup_stays_a_text():
    order = parse_order(json.dumps({'number': 1, 'order': 'start_episode', 'task': MARKUP}))
    assert order.task == MARKUP.strip()


# What is shown


def robot(**values):
    known = {
        'state': 1, 'source': 'teleop', 'reason': '', 'connected': True, 'emergency_stopped': False,
        'protective_stopped': False, 'speed_scaling': 1.0, 'robot_mode_text': 'RUNNING',
        'safety_mode_text': 'NORMAL',
    }  # fmt: skip
    return SimpleNamespace(**{**known, **values})


@pytest.mark.parametrize(
    ('values', 'state', 'advice'),
    [
        ({}, 'ENABLED', 'Stop: space'),
        ({'state': 0}, 'DISABLED', r'Enable \(E\)'),
        ({'state': 2, 'reason': 'silence'}, 'STOPPED', 'Remove the cause'),
        ({'state': 2, 'protective_stopped': True}, 'STOPPED', r'recover \(V\)'),
        ({'state': 2, 'emergency_stopped': True}, 'STOPPED', 'Release the emergency stop'),
        ({'connected': False}, 'ENABLED', 'No data come from the robot'),
        ({'speed_scaling': 0.0}, 'ENABLED', 'speed slider'),
        ({'state': 77}, 'UNKNOWN 77', 'Commands move'),
    ],
)
def test_the_arm_says_what_to_do(values, state, advice):
    view = arm_view(robot(**values), {})
    assert view['state'] == state
    assert pytest.approx(view['speed_percent']) == 100 * robot(**values).speed_scaling
    assert re.search(advice, view['advice'])


def test_the_confirmation_names_who_may_move_the_arm():
    moves = arm_view(robot(speed_scaling=0.5), {'teleop': ['left_hand'], 'policy': []})['moves']
    assert '50 %' in moves
    assert 'teleop (left_hand)' in moves
    assert 'policy' not in moves
    assert 'Nobody commands now' in arm_view(robot(), {})['moves']


def test_old_values_do_not_leave_the_node():
    newest = Newest()
    view = lambda now_s: newest.view(lambda message: {'value': message}, 'The recorder', now_s)  # noqa: E731
    assert view(0.0)['sentence'] == 'The recorder does not run, or has not reported yet.'
    newest.take(7, 10.0)
    assert view(10.0 + 0.9 * LOST_S) == {'lost': False, 'value': 7}
    assert view(10.9) == {'lost': True, 'sentence': 'The recorder has been silent for 0.9 s.'}
    assert LOST_S < 1.0


def stream(**values):
    known = {
        'topic': 'tcp_pose', 'rate': 124.96, 'expected_rate': 125.0, 'age': 0.0081, 'jitter': 0.0004,
        'lost': 0, 'problem': '',
    }  # fmt: skip
    return stream_view(SimpleNamespace(**{**known, **values}))


def test_streams_have_a_level_and_a_sentence():
    assert stream()['level'] == 'good'
    assert (stream()['rate_hz'], stream()['age_ms'], stream()['jitter_ms']) == (125.0, 8, 0.4)
    assert stream(problem='silent for 1.0 s')['level'] == 'bad'
    assert stream(problem='had a gap of 70 ms')['level'] == 'warn'
    assert stream(lost=3)['sentence'] == '3 messages were lost in this episode'
    assert stream(age=-1.0)['age_ms'] is None
    assert stream(rate=math.nan)['rate_hz'] is None


@pytest.mark.parametrize(
    ('minutes', 'level', 'text'), [(0.4, 'bad', '0 min'), (5, 'warn', '5 min'), (1200, 'good', '20 h')]
)
def test_the_disk_is_told_in_minutes(minutes, level, text):
    view = disk_view(3e9, minutes)
    assert view['level'] == level
    assert view['text'] == f'{text} left (3 GB)'


def test_a_policy_without_a_latency_has_no_number():
    status = SimpleNamespace(
        state=2, reason='', policy='x', task='', loading='', chunks=1, late=0, latency_p50=math.nan,
        latency_p95=0.0512, dropped_share=0.25,
    )  # fmt: skip
    view = policy_view(status)
    assert (view['state'], view['latency_p50_ms'], view['latency_p95_ms']) == ('RUNNING', None, 51)
    assert view['dropped_percent'] == 25.0
    json.dumps(view, allow_nan=False)


# The server


def test_a_page_is_served_with_headers_that_keep_other_sites_out():
    async def scenario(page, cell, server):
        async with page.session.get(f'{page.url}/') as response:
            assert response.status == 200
            assert "operator's page" in await response.text()
            assert response.headers['X-Frame-Options'] == 'DENY'
            assert "default-src 'self'" in response.headers['Content-Security-Policy']
            assert response.headers['Cache-Control'] == 'no-store'
        for name in ('page.js', 'page.css', 'live.js', 'episodes.js', 'replay.js'):
            async with page.session.get(f'{page.url}/static/{name}') as response:
                assert response.status == 200

    assert with_server(scenario) == []


@pytest.mark.parametrize(
    'path', ['/static/..%2fserver.py', '/static/index.html', '/etc/passwd', '/static/../access.py']
)
def test_no_other_file_is_served(path):
    async def scenario(page, cell, server):
        async with page.session.get(URL(page.url + path, encoded=True)) as response:
            assert response.status == 404

    assert with_server(scenario) == []


def test_a_wrong_token_sees_nothing_and_the_right_one_sees_all():
    async def scenario(page, cell, server):
        async with page.session.get(f'{page.url}/') as response:
            assert 'Log in' in await response.text()
        for path in ('/static/page.js', '/live?client=client-one'):
            async with page.session.get(page.url + path, headers=page.origin) as response:
                assert response.status == 401
                assert await response.text() == 'Log in first: the page asks for its token.'
        async with page.session.post(
            f'{page.url}/login', data={'token': 'x'}, headers=page.origin
        ) as response:
            assert response.status == 403
            assert 'The token is wrong' in await response.text()
        async with page.session.post(f'{page.url}/login', data={'token': TOKEN}) as response:
            assert response.status == 403  # without an Origin
        async with page.session.post(
            f'{page.url}/login', data={'token': TOKEN}, headers=page.origin
        ) as response:
            assert response.status == 200
            cookie = response.headers['Set-Cookie']
            assert 'HttpOnly' in cookie and 'SameSite=Strict' in cookie
            assert TOKEN not in cookie
        socket = await page.live()
        assert (await socket.receive_json())['kind'] == 'state'
        await socket.close()

    assert with_server(scenario, '0.0.0.0', TOKEN) == []


@pytest.mark.parametrize('origin', ['http://evil.example', 'null', None])
def test_a_page_of_another_site_cannot_connect(origin):
    async def scenario(page, cell, server):
        page.origin = {'Origin': origin} if origin else {}
        for path in ('/live?client=client-one', '/cameras'):
            with pytest.raises(WSServerHandshakeError) as refusal:
                await page.session.ws_connect(page.url + path, headers=page.origin)
            assert refusal.value.status == 403
        assert cell.orders == []

    assert with_server(scenario) == []


def test_another_name_for_this_machine_is_refused():
    async def scenario(page, cell, server):
        async with page.session.get(f'{page.url}/', headers={'Host': 'evil.example'}) as response:
            assert response.status == 403
            assert 'this machine only' in await response.text()

    assert with_server(scenario) == []


def test_a_state_comes_at_once_and_several_times_a_second():
    async def scenario(page, cell, server):
        socket = await page.live()
        first = await socket.receive_json()
        assert first['control'] == {'mine': True, 'holder': '127.0.0.1'}
        assert first['task'] == MARKUP
        began_s = time.monotonic()
        for _ in range(3):
            await socket.receive_json()
        assert time.monotonic() - began_s < 3.0
        server.changed()
        await socket.receive_json()
        await socket.close()

    assert with_server(scenario) == []


def test_of_two_pages_that_start_at_once_one_is_refused():
    async def scenario(page, cell, server):
        first = await page.live('client-one')
        second = await page.live('client-two')
        answers = await asyncio.gather(
            answer_to(first, order='start_episode', task='one'),
            answer_to(second, order='start_episode', task='two'),
        )
        assert [answer['success'] for answer in answers] == [True, False]
        assert 'take the control first (G)' in answers[1]['message']
        assert [order.task for order in cell.orders] == ['one']
        assert (await answer_to(second, order='take_control'))['success']
        assert not (await answer_to(first, order='start_episode'))['success']
        assert (await answer_to(second, order='start_episode', task='two'))['success']

    assert with_server(scenario) == []


def test_everybody_may_stop_and_a_stop_waits_for_no_other_order():
    async def scenario(page, cell, server):
        first = await page.live('client-one')
        second = await page.live('client-two')
        await first.send_json({'number': 9, 'order': 'enable_arm'})
        assert (await answer_to(first, order='stop_arm'))['message'] == 'done: stop_arm'
        assert (await answer_to(second, order='stop_arm'))['success']
        assert [order.order for order in cell.orders] == ['stop_arm', 'stop_arm']
        cell.go_on.set()
        while (await first.receive_json()).get('number') != 9:
            pass

    assert with_server(scenario) == []


def test_a_page_that_is_opened_again_replaces_the_older_one():
    async def scenario(page, cell, server):
        older = await page.live()
        newer = await page.live()
        while (await older.receive(timeout=5)).type.name == 'TEXT':
            pass
        assert older.close_code == 4001
        assert (await answer_to(newer, order='preflight'))['success']

    assert with_server(scenario) == []


def test_what_is_no_order_is_answered_in_one_sentence_and_the_page_goes_on():
    async def scenario(page, cell, server):
        socket = await page.live()
        answer = await answer_to(socket, order='start_episode', task='x' * 10_000)
        assert not answer['success']
        assert 'at most 2000 characters' in answer['message']
        assert not (await answer_to(socket, order='fly'))['success']
        answer = await answer_to(socket, order='redo_episode')
        assert answer['message'] == 'ZeroDivisionError: a fault.'
        answer = await answer_to(socket, order='start_episode', task=MARKUP)
        assert answer['success']
        assert cell.orders[-1].task == MARKUP.strip()

    faults = with_server(scenario)
    assert [where for where, _ in faults] == ['redo_episode']


def test_a_huge_message_ends_its_connection_only():
    async def scenario(page, cell, server):
        socket = await page.live('client-one')
        await socket.send_str('x' * 200_000)
        while (await socket.receive(timeout=5)).type.name == 'TEXT':
            pass
        assert socket.close_code == 1009
        other = await page.live('client-two')
        assert (await other.receive_json())['kind'] == 'state'

    with_server(scenario)


@pytest.mark.parametrize('name', ['', 'short', 'a' * 65, 'with spaces in', '../../etc'])
def test_a_page_needs_a_name(name):
    async def scenario(page, cell, server):
        with pytest.raises(WSServerHandshakeError) as refusal:
            await page.live(name)
        assert refusal.value.status == 400

    assert with_server(scenario) == []


def image(stamp_ns: int, level: int, size=(64, 48), encoding: str = 'rgb8') -> bytes:
    types = typestore().types
    header = types[HEADER_TYPE](time_message(stamp_ns), 'zed')
    pixels = np.full(size[0] * size[1] * 3, level, np.uint8)
    return serialized(
        types[IMAGE_TYPE](header, size[1], size[0], encoding, 0, 3 * size[0], pixels), IMAGE_TYPE
    )


def test_images_come_with_their_age_one_after_the_other_is_seen():
    async def scenario(page, cell, server):
        images = server._images
        socket = await page.session.ws_connect(f'{page.url}/cameras', headers=page.origin)
        while images.watched_topics() != {'zed/image'}:
            await asyncio.sleep(0.01)
        images.put('zed/image', image(time.time_ns() - 250_000_000, 10), IMAGE_TYPE)
        packet = await socket.receive_bytes(timeout=5)
        assert packet[0] == 0
        assert 0.25 <= np.frombuffer(packet[4:8], '<f4')[0] < 3.0
        assert np.frombuffer(packet[8:16], '<f8')[0] == pytest.approx(time.time() - 0.25, abs=3)
        assert packet[16:18] == b'\xff\xd8'
        for level in (20, 30, 40):  # two of them while the page has not drawn the first
            images.put('zed/image', image(time.time_ns(), level), IMAGE_TYPE)
        await socket.send_str('0')
        newest = await socket.receive_bytes(timeout=5)
        assert brightness(newest[16:]) == pytest.approx(40, abs=3)
        await socket.send_str('0')
        images.put('zed/image', image(time.time_ns(), 40, encoding='bayer'), IMAGE_TYPE)
        assert 'bayer' in (await socket.receive_json(timeout=5))['problem']
        await socket.close()
        while images.watched_topics():
            await asyncio.sleep(0.01)

    assert with_server(scenario) == []


def brightness(jpeg: bytes) -> float:
    return float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean())


def test_a_wide_image_is_made_smaller():
    jpeg = small_jpeg(VideoFrame(0, np.zeros((720, 1280, 3), np.uint8), 'bgr24'))
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (360, 640, 3)


def test_a_port_in_use_is_named_and_a_server_ends_its_thread():
    server = ServerThread(web.Application(), '127.0.0.1', 0)
    with pytest.raises(GrootRosError, match=f'cannot listen on 127.0.0.1:{server.port}'):
        ServerThread(web.Application(), '127.0.0.1', server.port)
    server.stop()
    server.stop()
    again = ServerThread(web.Application(), '127.0.0.1', server.port)
    again.stop()
