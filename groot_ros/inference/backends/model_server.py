# SPDX-License-Identifier: Apache-2.0
"""Loads a model, warms it up, and serves it. Run as a file by a model's own Python: `PYTHON model_server.py SETTINGS_JSON`.

It says what it does as lines of JSON on its standard output, and ends when its standard input is closed, so that it never outlives
whoever started it. What libraries print goes to standard error.
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
    """Makes this package importable, and nothing that lies beside it: those libraries are of another Python."""
    folder = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location(
        'groot_ros', folder / '__init__.py', submodule_search_locations=[str(folder)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules['groot_ros'] = package
    spec.loader.exec_module(package)
    sys.path[:] = [
        place for place in sys.path if Path(place or '.').resolve() != Path(__file__).resolve().parent
    ]


def _exit_when_parent_dies() -> None:
    # Not through sys.stdin: its lock, held by this thread, breaks the interpreter's own end.
    while os.read(0, 1):
        pass
    os._exit(0)


def _serve(settings: dict, say) -> None:
    from groot_ros.inference.backends import BACKENDS
    from groot_ros.inference.backends.warmup import example_observation
    from groot_ros.inference.protocol import TOKEN_VARIABLE
    from groot_ros.inference.server import Server

    say(doing=f'loading {settings["checkpoint"] or settings["backend"]}')
    backend = importlib.import_module(BACKENDS[settings['backend']].module).load(settings)
    observation = example_observation(backend, settings['rows'])
    seconds = 0.0
    for number in range(_WARM_UPS):
        say(doing=f'warming up, {number + 1} of {_WARM_UPS}')
        began_s = time.monotonic()
        backend.get_action(observation, None)
        seconds = time.monotonic() - began_s
    backend.reset()
    server = Server(
        backend,
        settings['host'],
        settings['port'],
        settings['gr00t_version'],
        os.environ.get(TOKEN_VARIABLE, ''),
    )
    say(ready=server.port, name=backend.name, answer_s=round(seconds, 4))
    server.run()


def main() -> int:
    """Serves until killed by the wire, by a signal, or by the end of whoever started it."""
    settings = json.loads(sys.argv[1])
    news = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    threading.Thread(target=_exit_when_parent_dies, daemon=True).start()

    def say(**content) -> None:
        print(json.dumps(content), file=news, flush=True)

    _import_package_only()
    try:
        _serve(settings, say)
    except ModuleNotFoundError as error:
        say(failed=f'{sys.executable} has no {error.name}: {settings["requirement"]}')
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # a model's libraries raise what they like
        say(failed=f'{str(error).strip() or type(error).__name__}')
        if type(error).__name__ != 'BackendError':
            raise
        return 1
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
