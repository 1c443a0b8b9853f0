# SPDX-License-Identifier: Apache-2.0
"""The small policy of this package, in a Python that has torch, safetensors, pydantic, scipy and pyyaml."""

from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.errors import BackendError
from groot_ros.inference.protocol import Modality

_SEED = 0


def load(settings: dict[str, Any]) -> 'SmallBackend':
    """Loads a checkpoint. Raises GrootRosError if it is damaged, or made for another embodiment."""
    import torch

    from groot_ros.small_policy.checkpoint import load_checkpoint

    spec, network = load_checkpoint(Path(settings['checkpoint']))
    problems = _problems(spec, settings['rows'])
    if problems:
        raise BackendError(
            f'The checkpoint is of the embodiment {spec.embodiment} and does not fit '
            f'{settings["rows"]["embodiment"]}: {"; ".join(problems)}.'
        )
    device = settings['device'] or ('cuda' if torch.cuda.is_available() else 'cpu')
    return SmallBackend(spec, network.to(device), device, Path(settings['checkpoint']).name)


def _problems(spec: Any, rows: dict[str, Any]) -> list[str]:
    """The keys that the embodiment lacks or has in another size."""
    sizes = rows['state_sizes']
    actions = {name: stop - start for name, (start, stop) in rows['action'].items()}
    found = [f'no camera {camera.name}' for camera in spec.cameras if camera.name not in rows['cameras']]
    found += [f'no state {key.name} of {key.size}' for key in spec.state if sizes.get(key.name) != key.size]
    keys = spec.action[1:] if spec.relative else spec.action
    found += [f'no action {key.name} of {key.size}' for key in keys if actions.get(key.name) != key.size]
    return found


class SmallBackend:
    """A small policy; poses are answered as absolute ones.

    Every chunk is made from the same noise: where there are two ways, the policy goes on in the one that it
    began, and the same observation has the same answer, whichever client asks.
    """

    def __init__(self, spec: Any, network: Any, device: str, name: str) -> None:
        import torch

        self._spec = spec
        self._network = network
        self._device = device
        generator = torch.Generator().manual_seed(_SEED)
        self._noise = torch.randn((1, spec.horizon, spec.action_size), generator=generator).to(device)
        self.name = f'small policy {name}'

    def modalities(self) -> dict[str, Modality]:
        """The keys of the checkpoint; it sees one row."""
        spec = self._spec
        return {
            'video': Modality([0], [camera.name for camera in spec.cameras]),
            'state': Modality([0], [key.name for key in spec.state]),
            'action': Modality(list(range(spec.horizon)), [key.name for key in spec.action]),
            'language': Modality([0], [spec.language]),
        }

    def extra_info(self) -> dict[str, Any]:
        """The image sizes of the training."""
        return {'image_sizes': {camera.name: [camera.width, camera.height] for camera in self._spec.cameras}}

    def get_action(
        self, observation: dict[str, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Actions (1, horizon, size) in physical units."""
        from groot_ros.small_policy.targets import denormalised, snapped

        spec = self._spec
        state = np.concatenate(
            [np.asarray(observation['state'][key.name], float)[0, -1] for key in spec.state]
        )
        chunk = denormalised(self._infer(observation, state), spec.action_range)
        if spec.relative:
            from groot_ros.small_policy.targets import absolute_chunk

            chunk = absolute_chunk(state[:9], chunk)
        answer = {}
        for key, part in spec.action_parts():
            values = chunk[:, part]
            if key.two_valued:
                low = np.array(spec.action_range.low).min(axis=0)[part]
                high = np.array(spec.action_range.high).max(axis=0)[part]
                values = snapped(values, low, high)
            answer[key.name] = values[None].astype(np.float32)
        return answer, {}

    def reset(self) -> None:
        """Starts a new episode, of which nothing is kept."""

    def _infer(self, observation: dict[str, Any], state: np.ndarray) -> np.ndarray:
        """The chunk (horizon, size) from -1 to 1."""
        import torch

        from groot_ros.small_policy.targets import normalised, text_features

        images = {}
        for camera in self._spec.cameras:
            pixels = np.array(observation['video'][camera.name])[:, -1]
            if pixels.shape[1:] != (camera.height, camera.width, 3):
                raise BackendError(
                    f'Images of {camera.name} come as {pixels.shape[2]}x{pixels.shape[1]}, and '
                    f'{camera.width}x{camera.height} is needed.'
                )
            images[camera.name] = torch.from_numpy(pixels).to(self._device).movedim(-1, 1).float() / 255
        # Beyond the range of the training the network has seen nothing.
        limited = np.clip(normalised(state[None], self._spec.state_range)[0], -1.5, 1.5)
        text = text_features(observation['language'][self._spec.language][0][0])
        with torch.inference_mode():
            chunk = self._network.act(images, self._row(limited), self._row(text), self._noise)
        return chunk[0].double().cpu().numpy()

    def _row(self, values: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(values)[None].float().to(self._device)
