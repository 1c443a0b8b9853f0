# SPDX-License-Identifier: Apache-2.0
"""Loads a model, warms it up, and serves it. A model's own Python runs this file with its settings as JSON.

It reports progress as lines of JSON on standard output; what libraries print goes to standard error.
It ends when its standard input is closed, so it never outlives the program that started it.
"""

import importlib
import importlib.util
import json
import os
import sys
import threading
import time
from pathlib import Path

_WARM_UPS = 3


def _import_package_only() -> None:
    """Makes this package importable, but not the libraries next to it, which belong to another Python."""
    folder = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location(
        'groot_ros', folder / '__init__.py', submodule_search_locations=[str(folder)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules['groot_ros'] = package
    spec.loader.exec_module(package)
    own_folder = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place or '.').resolve() != own_folder]


def _exit_when_parent_dies() -> None:
    # Not through sys.stdin: this thread would hold its lock, and the interpreter could not exit cleanly.
    while os.read(0, 1):
        pass
    os._exit(0)


def _serve(settings: dict, report) -> None:
    from groot_ros.inference.backends import BACKENDS
    from groot_ros.inference.backends.warmup import example_observation
    from groot_ros.inference.protocol import TOKEN_VARIABLE
    from groot_ros.inference.server import Server

    report(doing=f'loading {settings["checkpoint"] or settings["backend"]}')
    backend_module = importlib.import_module(BACKENDS[settings['backend']].module)
    backend = backend_module.load(settings)
    observation = example_observation(backend, settings['rows'])
    answer_s = 0.0
    for number in range(_WARM_UPS):
        report(doing=f'warming up, {number + 1} of {_WARM_UPS}')
        began_s = time.monotonic()
        backend.get_action(observation, None)
        answer_s = time.monotonic() - began_s
    backend.reset()
    server = Server(
        backend,
        settings['host'],
        settings['port'],
        settings['gr00t_version'],
        os.environ.get(TOKEN_VARIABLE, ''),
    )
    report(ready=server.port, name=backend.name, answer_s=round(answer_s, 4))
    server.run()


def main() -> int:
    """Serves until a client sends `kill`, a signal comes, or the program that started it ends."""
    settings = json.loads(sys.argv[1])
    progress = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    threading.Thread(target=_exit_when_parent_dies, daemon=True).start()

    def report(**content) -> None:
        print(json.dumps(content), file=progress, flush=True)

    _import_package_only()
    try:
        _serve(settings, report)
    except ModuleNotFoundError as error:
        report(failed=f'{sys.executable} has no {error.name}: {settings["requirement"]}')
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # a model's libraries may raise anything
        report(failed=f'{str(error).strip() or type(error).__name__}')
        if type(error).__name__ != 'BackendError':
            raise
        return 1
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
