# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium by its DevTools protocol, for tests and measurements of the operator's page."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import connect

_PROGRAMS = ('chromium', 'chromium-browser', 'google-chrome')
_OPTIONS = (
    '--headless=new', '--remote-debugging-port=0', '--no-first-run', '--disable-gpu', '--hide-scrollbars',
    '--disable-dev-shm-usage', '--disable-background-networking', '--no-proxy-server', '--mute-audio',
)  # fmt: skip
_START_S = 60.0
_CALL_S = 30.0
# Key codes of what has no letter.
_NAMED_KEYS = {' ': (32, 'Space'), 'Enter': (13, 'Enter'), 'Escape': (27, 'Escape')}


def find_chromium() -> str:
    """The path of a Chromium; empty where none is installed."""
    return next(filter(None, map(shutil.which, _PROGRAMS)), '')


class Browser:
    """One tab. A context manager: its end stops the browser. Needs a Chromium, see `find_chromium`."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        self._folder = tempfile.mkdtemp(prefix='chromium_')
        sandbox = ['--no-sandbox'] if os.geteuid() == 0 else []
        command = [find_chromium(), *_OPTIONS, *sandbox, f'--user-data-dir={self._folder}', 'about:blank']
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self._number = 0
        self._closing = ExitStack()
        self.events: list[dict[str, Any]] = []
        connection = connect(self._page_address(), max_size=64 << 20, open_timeout=_START_S, proxy=None)
        self._socket = self._closing.enter_context(connection)
        for domain in ('Page', 'Runtime', 'Log'):
            self.call(f'{domain}.enable')
        self.resize(width, height)

    def __enter__(self) -> 'Browser':
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stderr is not None
        self._process.stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _page_address(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r'ws://([^/]+)/', line):
                with urlopen(f'http://{found[1]}/json/list', timeout=_START_S) as answer:
                    pages = [entry for entry in json.load(answer) if entry['type'] == 'page']
                return pages[0]['webSocketDebuggerUrl']
        raise RuntimeError('Chromium ended before it listened.')

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """The answer of the browser to a command of its protocol; events meanwhile are kept in `events`."""
        self._number += 1
        self._socket.send(json.dumps({'id': self._number, 'method': method, 'params': values}))
        while True:
            message = json.loads(self._socket.recv(timeout=_CALL_S))
            if message.get('id') == self._number:
                if 'error' in message:
                    raise RuntimeError(f'{method}: {message["error"]["message"]}')
                return message['result']
            self.events.append(message)

    def open(self, url: str) -> None:
        """Loads a page."""
        self.call('Page.navigate', url=url)

    def run_before_scripts(self, script: str) -> None:
        """Runs a script in every page that is opened from now on, before the page's own."""
        self.call('Page.addScriptToEvaluateOnNewDocument', source=script)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Sets the size of the window, px."""
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width, height=height, deviceScaleFactor=1, mobile=mobile,
        )  # fmt: skip

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in answer:
            details = answer['exceptionDetails']
            raise RuntimeError(details.get('exception', {}).get('description', details['text']))
        return answer['result'].get('value')

    def text(self, element: str) -> str:
        """The text of the element with an id; empty if there is none."""
        return self.evaluate(f'document.getElementById({json.dumps(element)})?.textContent ?? ""')

    def until(self, expression: str, timeout_s: float = 30.0) -> None:
        """Waits until a JavaScript expression is true. Raises TimeoutError with the page's texts if not."""
        deadline_s = time.monotonic() + timeout_s
        # Before the page has loaded, its elements do not exist.
        tried = f'(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()'
        while not self.evaluate(tried):
            if time.monotonic() > deadline_s:
                shown = self.evaluate('document.body.innerText')
                raise TimeoutError(f'{expression} did not become true. The page shows:\n{shown}')
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Presses and releases a key: a letter or digit, ' ', Enter or Escape."""
        code, name = _NAMED_KEYS.get(key) or (ord(key.upper()), f'Key{key.upper()}')
        values = {'key': key, 'code': name, 'windowsVirtualKeyCode': code}
        text = {'text': '\r' if key == 'Enter' else key} if key != 'Escape' else {}
        self.call('Input.dispatchKeyEvent', type='keyDown' if text else 'rawKeyDown', **values, **text)
        self.call('Input.dispatchKeyEvent', type='keyUp', **values)

    def write(self, text: str) -> None:
        """Writes a text into the field that has the focus."""
        self.call('Input.insertText', text=text)

    def problems(self) -> list[str]:
        """Errors that the page's scripts and its console have reported so far."""
        self.evaluate('0')
        found = []
        for event in self.events:
            values = event.get('params', {})
            if event.get('method') == 'Runtime.exceptionThrown':
                found.append(
                    values['exceptionDetails'].get('exception', {}).get('description', 'an exception')
                )
            elif event.get('method') == 'Log.entryAdded' and values['entry']['level'] == 'error':
                found.append(f'{values["entry"]["text"]} {values["entry"].get("url", "")}'.strip())
        return found

    def screenshot(self, path: Path, quality: int = 72, full: bool = False) -> None:
        """Writes what the page shows as JPEG; with `full` also what must be scrolled to."""
        answer = self.call(
            'Page.captureScreenshot', format='jpeg', quality=quality, captureBeyondViewport=full
        )
        path.write_bytes(base64.b64decode(answer['data']))
