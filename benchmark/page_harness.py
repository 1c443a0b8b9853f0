# SPDX-License-Identifier: Apache-2.0
"""The server of the operator's page with a made-up cell, and a client's connection to it, for tests."""

import asyncio
from pathlib import Path

from aiohttp import ClientSession, CookieJar
from aiohttp.test_utils import TestServer

from groot_ros.operator_page.access import Access
from groot_ros.operator_page.cameras import CameraImages
from groot_ros.operator_page.episodes import EpisodeLibrary
from groot_ros.operator_page.server import PageServer

TOKEN = 'a token of some length'
MARKUP = '<img src=x onerror="alert(1)"> "quoted" & \u2028'


class FakeCell:
    """A node that notes its orders; `enable_arm` waits until it is told to go on."""

    def __init__(self) -> None:
        self.orders: list = []
        self.task = MARKUP
        self.go_on = asyncio.Event()

    def state(self) -> dict:
        return {'arm': {'lost': True}, 'task': self.task, 'seen': len(self.orders)}

    async def carry_out(self, order) -> tuple[bool, str]:
        if order.order == 'enable_arm':
            await self.go_on.wait()
        if order.order == 'redo_episode':
            raise ZeroDivisionError('a fault')
        self.orders.append(order)
        return True, f'done: {order.order}'


class Page:
    """A browser's connection to a server of the test."""

    def __init__(self, server: TestServer, token: str = '') -> None:
        self.url = str(server.make_url('/')).rstrip('/')
        self.session = ClientSession(cookie_jar=CookieJar(unsafe=True))
        self.origin = {'Origin': self.url}
        self.token = token

    def log_in(self, token: str):
        return self.session.post(f'{self.url}/login', data={'token': token}, headers=self.origin)

    async def live(self, client: str = 'client-one'):
        return await self.session.ws_connect(f'{self.url}/live?client={client}', headers=self.origin)


def with_server(scenario, host: str = '127.0.0.1', token: str = '', folder=Path('/nowhere')) -> list:
    """Runs a scenario(page, cell, server) with a page of its own, and returns the faults that were told."""
    faults = []
    library = EpisodeLibrary(folder)

    async def run() -> None:
        cell = FakeCell()
        images = CameraImages(['zed/image'])
        server = PageServer(
            cell, Access(host, token), images, library, lambda where, error: faults.append((where, error))
        )
        http = TestServer(server.app)
        await http.start_server()
        page = Page(http)
        try:
            await asyncio.wait_for(scenario(page, cell, server), 20)
        finally:
            await page.session.close()
            await http.close()

    asyncio.run(run())
    library.close()
    return faults


async def answer_to(socket, **order) -> dict:
    """The answer to an order; states that come before it are skipped."""
    await socket.send_json({'number': 1, **order})
    while True:
        message = await socket.receive_json(timeout=5)
        if message['kind'] == 'answer' and message['number'] in (order.get('number', 1), -1):
            return message


def calm_cell(task: str = 'put the cube into the bin') -> dict:
    """A state as the node gives it: the arm is disabled, and an episode can start."""
    return {
        'arm': {
            'lost': False, 'state': 'DISABLED', 'source': '', 'reason': '', 'advice': 'Nothing moves.',
            'robot_mode': 'RUNNING', 'safety_mode': 'NORMAL', 'speed_percent': 100, 'connected': True,
            'may_recover': False, 'moves': 'The arm will move.',
        },
        'recorder': {
            'lost': False, 'state': 'IDLE', 'episode': '', 'task': '', 'rows': 0, 'filled': 0, 'saved': 2,
            'lost_messages': 0, 'queue': 0, 'encoder_lag_ms': 0, 'problems': [], 'next_task': task,
            'next_done': 1, 'next_wanted': 3, 'tasks': [{'text': task, 'done': 1, 'wanted': 3}],
            'disk': {'text': '100 min left (60 GB)', 'level': 'good'},
            'streams': [
                {
                    'topic': topic, 'rate_hz': 118.4, 'expected_hz': 125, 'age_ms': 1143, 'jitter_ms': 100.4,
                    'lost': 12, 'level': 'bad', 'sentence': 'comes at 118.4 Hz instead of 125',
                }
                for topic in ('joint_states', 'policy/action_chunk')
            ],
            'verdict': {'episode': 'episode_000001', 'verdict': 'fail', 'reasons': [task]},
        },
        'policy': {'lost': True, 'sentence': 'policy_server does not run.'},
        'cameras': [],
    }  # fmt: skip
