# SPDX-License-Identifier: Apache-2.0
"""The table of model backends, one module each.

They run in the model's own Python, so this file needs only the standard library.

A backend module has `load(settings)`, which returns a `groot_ros.inference.server.ModelBackend`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackendInfo:
    """The module with `load`, the package that the model's Python must have, and the name that is shown."""

    module: str
    package: str
    label: str

    @property
    def requirement(self) -> str:
        """What to do if the model's Python does not have the package."""
        return (
            f'name the Python that has {self.package} with --python (parameter python), '
            'and in it: pip install pyzmq msgpack numpy'
        )


GR00T = 'gr00t'
LEROBOT = 'lerobot'
SMALL = 'small'
BACKENDS = {
    GR00T: BackendInfo('groot_ros.inference.backends.gr00t', "NVIDIA's Isaac-GR00T", 'GR00T'),
    LEROBOT: BackendInfo('groot_ros.inference.backends.lerobot', 'lerobot', 'LeRobot'),
    SMALL: BackendInfo('groot_ros.inference.backends.small', 'torch', 'The small policy'),
}
# Of the protocol that a model server speaks.
GR00T_VERSIONS = ('n1.5', 'n1.6', 'n1.7')
BACKEND_NAMES = ' or '.join(BACKENDS)
