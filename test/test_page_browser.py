# SPDX-License-Identifier: Apache-2.0
"""The operator's page in a headless Chromium, with a made-up cell behind its server."""

import time

import pytest

from benchmark.browser import Browser, find_chromium
from benchmark.page_harness import MARKUP, calm_cell
from groot_ros.operator_page.access import Access
from groot_ros.operator_page.cameras import CameraImages
from groot_ros.operator_page.episodes import EpisodeLibrary
from groot_ros.operator_page.server import PageServer
from groot_ros.operator_page.serving import ServerThread
from groot_ros.quality.verdict import judge, load_thresholds
from groot_ros.recording.episode_folder import EpisodeFolder, IndexEntry

pytestmark = pytest.mark.skipif(not find_chromium(), reason='no Chromium is installed: apt install chromium')
MISSING = range(10, 18)
HOSTILE = f'{MARKUP} {"x" * 1900}'


class KnownCell:
    """A node whose state is known, and that notes what it is told."""

    def __init__(self) -> None:
        self.content = calm_cell(HOSTILE)
        self.orders = []

    def state(self) -> dict:
        return self.content

    async def carry_out(self, order) -> tuple[bool, str]:
        self.orders.append(order)
        return True, f'done: {order.order}'

    def told(self, name: str) -> list:
        return [order for order in self.orders if order.order == name]


class Served:
    """A page at a port of its own."""

    def __init__(self, folder) -> None:
        self.cell = KnownCell()
        self.faults = []
        self._library = EpisodeLibrary(folder)
        self._serve(0)

    def _serve(self, port: int) -> None:
        server = PageServer(
            self.cell, Access('127.0.0.1', ''), CameraImages([]), self._library,
            lambda *fault: self.faults.append(fault),
        )  # fmt: skip
        self._thread = ServerThread(server.app, '127.0.0.1', port)
        self.port = self._thread.port

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.port}/'

    def end(self) -> None:
        self._thread.stop()

    def serve_again(self) -> None:
        self._serve(self.port)

    def close(self) -> None:
        self.end()
        self._library.close()


@pytest.fixture(scope='module')
def folder(tmp_path_factory, make_synthetic):
    """A good episode, and one whose camera gave no image for rows 10 to 17; their task has markup."""
    made = tmp_path_factory.mktemp('episodes')
    for number, missing in enumerate([(), MISSING]):
        name = f'episode_{number:06d}'
        trace = make_synthetic(seconds=2.5, missing_frames=missing).record(made / name, task=MARKUP)
        verdict = judge(trace, load_thresholds(), {'task': MARKUP, 'outcome': 'success'}, name)
        verdict.save(made / name)
        index = EpisodeFolder(made)
        index.add(IndexEntry(name, MARKUP, 'success', verdict.verdict, verdict.rows, verdict.duration_s))
        index.close()
    return made


@pytest.fixture(scope='module')
def browser():
    """One browser for all tests here: it takes seconds to start."""
    with Browser() as made:
        yield made


@pytest.fixture
def page(folder):
    made = Served(folder)
    yield made
    made.close()
    assert made.faults == []


def opened(browser, page) -> None:
    browser.events.clear()
    browser.open(page.url)
    browser.until("document.getElementById('arm-state').textContent === 'DISABLED'")


def test_texts_with_markup_are_shown_as_texts_and_break_nothing(browser, page):
    opened(browser, page)
    assert browser.text('episode-task').startswith(f'next: {MARKUP}')
    assert browser.text('verdict-reasons') == f'■ {HOSTILE}'
    assert browser.evaluate("document.querySelectorAll('#collect img').length") == 0
    for width in (1280, 390):
        browser.resize(width, 900, mobile=width < 600)
        assert browser.evaluate('document.documentElement.scrollWidth') <= width
    browser.resize(1280, 900)
    assert browser.problems() == []


def test_an_episode_is_looked_at_and_labelled_by_keyboard(browser, page):
    opened(browser, page)
    browser.press('i')
    browser.until("document.getElementById('replay-title').textContent.startsWith('episode_000001: success')")
    assert browser.text('replay-task') == MARKUP
    assert browser.evaluate("document.querySelectorAll('#episode-table tbody tr').length") == 2
    browser.until("document.querySelector('#replay-videos video').readyState >= 2")
    browser.evaluate("document.querySelector('#replay-reasons button').click()")
    row = "Number(document.getElementById('replay-time').value)"
    browser.until(f'{row} >= {MISSING.start - 2} && {row} <= {MISSING.stop}')
    browser.until("document.querySelector('#replay-videos video').currentTime > 0.3")
    assert browser.evaluate(
        "[...document.querySelectorAll('#replay-panels canvas')].every((canvas) => canvas.getContext('2d')"
        '.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value))'
    )
    browser.press('x')
    browser.until("document.getElementById('answers').textContent.includes('done: relabel_episode')")
    (order,) = page.cell.told('relabel_episode')
    assert (order.episode, order.outcome) == ('episode_000001', 'excluded')
    browser.press('k')
    browser.until("document.getElementById('replay-title').textContent.startsWith('episode_000000')")
    browser.press('l')
    browser.until(f'{row} > 3')
    browser.press(' ')
    browser.until("document.getElementById('answers').textContent.includes('done: stop_arm')")
    browser.press('d')
    browser.press('Escape')
    browser.until("!document.getElementById('confirm').open")
    assert page.cell.told('delete_episode') == []
    browser.press('o')
    browser.write('the lid stuck')
    browser.press('Enter')
    browser.until("document.activeElement.id !== 'replay-notes'")
    browser.press('f')
    browser.write('000001')
    browser.until("document.querySelectorAll('#episode-table tbody tr').length === 1")
    assert page.cell.told('relabel_episode')[-1].notes == 'the lid stuck'
    assert browser.evaluate("document.querySelectorAll('#replay script, #replay img').length") == 0
    assert browser.problems() == []


def test_a_page_without_its_node_says_so_within_a_second_and_comes_back(browser, page):
    opened(browser, page)
    page.end()
    began_s = time.monotonic()
    browser.until("document.getElementById('arm-state').textContent === 'LOST'")
    assert time.monotonic() - began_s < 1.2  # 1 s, and the time of asking the browser
    assert 'this page cannot stop them' in browser.text('lost')
    assert browser.text('episode-state') == 'LOST'
    assert browser.text('disk') == '–'
    page.serve_again()
    browser.until("document.getElementById('arm-state').textContent === 'DISABLED'")
    assert browser.evaluate("document.getElementById('lost').hidden")


def test_a_node_that_falls_silent_shows_none_of_its_old_values(browser, page):
    opened(browser, page)
    page.cell.content['recorder'] = {'lost': True, 'sentence': 'The recorder has been silent for 0.9 s.'}
    browser.until("document.getElementById('episode-state').textContent === 'LOST'")
    assert browser.evaluate("document.querySelectorAll('#tasks tbody tr').length") == 0
    assert browser.evaluate("document.getElementById('start').disabled")
    assert browser.text('arm-state') == 'DISABLED'
