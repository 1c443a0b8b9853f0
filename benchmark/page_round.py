# SPDX-License-Identifier: Apache-2.0
"""A round at the operator's page: a simulated cell, a headless Chromium and its keyboard.

`python -m benchmark.page_round FOLDER` writes an image of each state into a folder, for the docs.
"""

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmark.browser import Browser
from groot_ros.bringup.profiles import Options
from groot_ros.bringup.supervisor import ProcessGroup
from groot_ros.resources import DEFAULT_EMBODIMENT

TASK = 'put the cube into the bin'
_START_S = 60.0
_PHONE_PX = (390, 844)
_DESK_PX = (1280, 900)


class PageRound:
    """The steps of a round, one after the other; each waits until the page shows what it did.

    `shoot` gets the name of each state that is worth an image.
    """

    def __init__(self, browser: Browser, group: ProcessGroup, shoot: Callable[[str], None]) -> None:
        self.browser = browser
        self.group = group
        self._shoot = shoot

    def open(self) -> None:
        """Opens the page, waits for the arm, the recorder and an image, and writes the task."""
        self.open_again()
        self.wait('episode-state', 'READY', _START_S)
        self.write_task()

    def open_again(self) -> None:
        """Opens the page, and waits for the arm and an image of each camera."""
        self.browser.open(f'http://{self.group.options.page_host}:{self.group.options.page_port}/')
        self.wait('arm-state', 'DISABLED', _START_S)
        shown = "document.querySelector('#cameras figure')"
        self.browser.until(f"{shown} && !document.querySelector('#cameras figure.stale')", _START_S)

    def write_task(self) -> None:
        """Writes the task into its field, by keyboard."""
        self.browser.press('t')
        self.browser.write(TASK)
        self.browser.press('Escape')

    def stop_camera(self) -> None:
        """Holds the camera's process: the preflight turns red, and an episode does not start."""
        os.kill(self._camera_pid(), signal.SIGSTOP)
        self.browser.until("document.getElementById('problems').textContent.includes('zed/image: silent')")
        assert 'zed/image: silent' in self.ask('p')
        assert 'Not ready' in self.ask('r')
        self._shoot('red')

    def start_camera(self) -> None:
        """Lets the camera go on: the preflight turns green."""
        os.kill(self._camera_pid(), signal.SIGCONT)
        self.ask_until('p', 'green: an episode can start')
        self._shoot('green')

    def record(self, rows: int, key: str) -> None:
        """Starts an episode, waits for rows, and presses the key that ends it."""
        self.start(rows)
        self._shoot('recording')
        self.end(key)
        self._shoot('verdict')

    def end(self, key: str) -> None:
        """Presses the key that ends the episode, and waits for its verdict."""
        assert 'saved' in self.ask(key)
        self.browser.until("document.getElementById('verdict-level').textContent.length > 1")

    def start(self, rows: int) -> None:
        """Starts an episode by keyboard, and waits for its rows."""
        self.ask_until('r', 'recording')
        self._wait_for_rows(rows)

    def redo(self, rows: int) -> None:
        """Discards the episode and records it again."""
        if 'again' not in self.ask('z'):
            self.ask_until('r', 'recording')
        self._wait_for_rows(rows)

    def ask(self, key: str) -> str:
        """Presses a key, and returns the answer to its order."""
        self.browser.evaluate("document.getElementById('answers').replaceChildren()")
        self.browser.press(key)
        self.browser.until("document.querySelector('#answers p')")
        return self.browser.text('answers')

    def ask_until(self, key: str, answer: str) -> None:
        """Presses a key whenever the preflight is green, until its order gets an answer with a text.

        On a busy computer streams come too slowly again and again, and an episode does not start then.
        """
        deadline_s = time.monotonic() + _START_S
        told = ''
        while answer not in told:
            assert time.monotonic() < deadline_s, f'{answer} was not answered, but: {told}'
            self.wait('episode-state', 'READY', _START_S)
            told = self.ask(key)

    def enable(self) -> None:
        """Enables the arm, after the sentence that names what will move."""
        self.browser.press('e')
        self.browser.until("document.getElementById('confirm').open")
        self._shoot('enable')
        self.browser.press('Enter')
        self.wait('arm-state', 'ENABLED')
        self._shoot('enabled')

    def stop(self) -> None:
        """Presses the stop button."""
        self.browser.evaluate("document.getElementById('stop').click()")
        self.wait('arm-state', 'DISABLED')

    def look_at_last(self) -> None:
        """Replays the last episode."""
        self.browser.press('i')
        self.browser.until("document.querySelector('#replay-videos video')?.readyState >= 2")
        self._shoot('episodes')

    def wait(self, element: str, text: str, timeout_s: float = 15.0) -> None:
        """Waits until an element shows a text."""
        self.browser.until(f"document.getElementById('{element}').textContent === '{text}'", timeout_s)

    def _wait_for_rows(self, rows: int) -> None:
        self.wait('episode-state', 'RECORDING')
        self.browser.until(f"parseInt(document.getElementById('episode-facts').textContent) >= {rows}")

    def _camera_pid(self) -> int:
        return self.group.pid('camera_driver')


@contextmanager
def running_round(
    folder: Path,
    host: str,
    shoot: Callable[[Browser, str], None] = lambda browser, name: None,
    embodiment: str = DEFAULT_EMBODIMENT,
) -> Iterator[PageRound]:
    """A simulated cell at a loopback address with its page, a browser, and the steps of a round."""
    # A shared computer may stall for longer than a real cell: these are the maximum limits of the driver.
    patience = folder / 'patience.yaml'
    patience.write_text(
        '/**/ur5e_driver:\n  ros__parameters:\n'
        '    {command_timeout_s: 2.0, max_command_age_s: 2.0, state_timeout_s: 0.6}\n'
    )
    options = Options(
        sim=True, robot_ip=host, output_dir=str(folder), page=True, page_host=host, embodiment=embodiment,
        params_file=str(patience),
    )  # fmt: skip
    with ProcessGroup('record', options, quiet=True) as group, Browser(*_DESK_PX) as browser:
        yield PageRound(browser, group, lambda name: shoot(browser, name))


def play(steps: PageRound) -> None:
    """The whole round: red, green, a success, one done again that fails, the arm, and the replay."""
    steps.open()
    steps.stop_camera()
    steps.start_camera()
    steps.record(45, 'y')
    steps.start(10)
    steps.redo(5)
    steps.end('n')
    steps.enable()
    steps.stop()
    steps.look_at_last()


def main() -> int:
    """Writes the images of the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    def shoot(browser: Browser, name: str) -> None:
        browser.screenshot(folder / f'page_{name}.jpg')
        if name in ('recording', 'episodes'):
            browser.resize(*_PHONE_PX, mobile=True)
            browser.screenshot(folder / f'page_{name}_phone.jpg')
            browser.resize(*_DESK_PX)

    with (
        tempfile.TemporaryDirectory() as episodes,
        running_round(Path(episodes), '127.9.0.1', shoot) as steps,
    ):
        play(steps)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
