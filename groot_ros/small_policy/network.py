# SPDX-License-Identifier: Apache-2.0
"""The network in torch: a convolutional encoder for each camera, and a transformer that gives the flow."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from groot_ros.small_policy.spec import IMAGE_STEP, CameraSpec, NetworkSpec, PolicySpec
from groot_ros.small_policy.targets import TEXT_BUCKETS

_CHANNELS = (32, 64, 128)
_GROUPS = 8
_TIME_SIZE = 128


class SmallNetwork(nn.Module):
    """Gives the velocity of a noisy chunk, for images, state and text."""

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        sizes = spec.network
        self._names = [camera.name for camera in spec.cameras]
        self._flow_steps = sizes.flow_steps
        self.cameras = nn.ModuleList(CameraEncoder(camera, sizes.width) for camera in spec.cameras)
        self.state = _two_layers(spec.state_size, sizes.width)
        self.text = nn.Linear(TEXT_BUCKETS, sizes.width)
        self.context = nn.ModuleList(ContextBlock(sizes) for _ in range(sizes.context_layers))
        self.action_in = nn.Linear(spec.action_size, sizes.width)
        self.steps = nn.Parameter(0.02 * torch.randn(spec.horizon, sizes.width))
        self.time = _two_layers(_TIME_SIZE, sizes.width)
        self.blocks = nn.ModuleList(FlowBlock(sizes) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width)
        self.action_out = nn.Linear(sizes.width, spec.action_size)

    def encode(self, images: dict[str, Tensor], state: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Context tokens (b, n, width), and one summary vector (b, width) of state and text.

        Images are (b, 3, height, width) from 0 to 1, the state (b, size) from -1 to 1.
        """
        tokens = [encoder(images[name]) for name, encoder in zip(self._names, self.cameras, strict=True)]
        state_token = self.state(state)
        text_token = self.text(text)
        context = torch.cat([*tokens, state_token[:, None], text_token[:, None]], dim=1)
        for block in self.context:
            context = block(context)
        return context, state_token + text_token

    def velocity(self, noisy: Tensor, time: Tensor, context: Tensor, summary: Tensor) -> Tensor:
        """The velocity (b, horizon, size) of noisy chunks at flow times (b,), 0 noise and 1 action."""
        condition = functional.silu(self.time(_waves(time)) + summary)
        tokens = self.action_in(noisy) + self.steps
        for block in self.blocks:
            tokens = block(tokens, context, condition)
        return self.action_out(self.norm(tokens))

    def loss(
        self,
        images: dict[str, Tensor],
        state: Tensor,
        text: Tensor,
        chunk: Tensor,
        noise: Tensor,
        time: Tensor,
    ) -> Tensor:
        """The mean squared error of the velocity from noise to chunk."""
        context, summary = self.encode(images, state, text)
        share = time[:, None, None]
        noisy = (1 - share) * noise + share * chunk
        return functional.mse_loss(self.velocity(noisy, time, context, summary).float(), chunk - noise)

    def act(self, images: dict[str, Tensor], state: Tensor, text: Tensor, noise: Tensor) -> Tensor:
        """A chunk (b, horizon, size) from -1 to 1, from noise of its shape, by Euler steps."""
        context, summary = self.encode(images, state, text)
        chunk = noise
        for step in range(self._flow_steps):
            time = torch.full((len(noise),), step / self._flow_steps, device=noise.device)
            chunk = chunk + self.velocity(chunk, time, context, summary) / self._flow_steps
        return chunk


class CameraEncoder(nn.Module):
    """Images (b, 3, height, width) to tokens (b, height * width / 256, size).

    The pixel's place is an input of the first layer, since convolutions alone do not know where they are.
    """

    def __init__(self, camera: CameraSpec, width: int) -> None:
        super().__init__()
        rows = torch.linspace(-1, 1, camera.height)[:, None].expand(camera.height, camera.width)
        columns = torch.linspace(-1, 1, camera.width)[None].expand(camera.height, camera.width)
        self.register_buffer('places', torch.stack([rows, columns]), persistent=False)
        layers: list[nn.Module] = []
        before = 5
        for channels in (*_CHANNELS, width):
            layers += [_convolution(before, channels, 2), Residual(channels)]
            before = channels
        self.layers = nn.Sequential(*layers)
        tokens = camera.height * camera.width // IMAGE_STEP**2
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, images: Tensor) -> Tensor:
        """The tokens (b, n, width) of images (b, 3, height, width) from 0 to 1."""
        places = self.places.expand(len(images), -1, -1, -1)
        features = self.layers(torch.cat([2 * images - 1, places], dim=1))
        return features.flatten(2).transpose(1, 2) + self.positions


class Residual(nn.Module):
    """Two convolutions, added to what they were given (b, channels, height, width)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_convolution(channels, channels, 1), _convolution(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Features (b, channels, height, width) of the same shape."""
        return features + self.layers(features)


class ContextBlock(nn.Module):
    """Self-attention and a perceptron: lets the tokens of the cameras, state and text see each other."""

    def __init__(self, sizes: NetworkSpec) -> None:
        super().__init__()
        self.attention = Attention(sizes)
        self.perceptron = _perceptron(sizes.width)
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.width) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        """The tokens (b, n, width) after they have seen each other."""
        seen = self.norms[0](tokens)
        tokens = tokens + self.attention(seen, seen)
        return tokens + self.perceptron(self.norms[1](tokens))


class FlowBlock(nn.Module):
    """Attention within the chunk and to the context, and a perceptron, each shifted and scaled (adaLN)."""

    def __init__(self, sizes: NetworkSpec) -> None:
        super().__init__()
        self.inner = Attention(sizes)
        self.outer = Attention(sizes)
        self.perceptron = _perceptron(sizes.width)
        self.norm = nn.LayerNorm(sizes.width, elementwise_affine=False)
        self.modulation = nn.Linear(sizes.width, 9 * sizes.width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, context: Tensor, condition: Tensor) -> Tensor:
        """Tokens (b, n, width) of the chunk, by context (b, m, width) and condition (b, width)."""
        parts = self.modulation(condition)[:, None].chunk(9, dim=-1)
        seen = self._modulated(tokens, parts[0], parts[1])
        tokens = tokens + (1 + parts[2]) * self.inner(seen, seen)
        seen = self._modulated(tokens, parts[3], parts[4])
        tokens = tokens + (1 + parts[5]) * self.outer(seen, context)
        seen = self._modulated(tokens, parts[6], parts[7])
        return tokens + (1 + parts[8]) * self.perceptron(seen)

    def _modulated(self, tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return self.norm(tokens) * (1 + scale) + shift


class Attention(nn.Module):
    """Attention of tokens (b, n, width) to others (b, m, width)."""

    def __init__(self, sizes: NetworkSpec) -> None:
        super().__init__()
        self._heads = sizes.heads
        self.query = nn.Linear(sizes.width, sizes.width)
        self.key_value = nn.Linear(sizes.width, 2 * sizes.width)
        self.out = nn.Linear(sizes.width, sizes.width)

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        """What the tokens (b, n, width) find in the others (b, m, width), of the shape of the tokens."""
        keys, values = self.key_value(others).chunk(2, dim=-1)
        found = functional.scaled_dot_product_attention(
            self._split(self.query(tokens)), self._split(keys), self._split(values)
        )
        return self.out(found.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self._heads, -1)).transpose(1, 2)


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.GroupNorm(_GROUPS, after), nn.SiLU()
    )


def _two_layers(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, after), nn.SiLU(), nn.Linear(after, after))


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def _waves(time: Tensor) -> Tensor:
    """Flow times (b,) as sines and cosines (b, _TIME_SIZE)."""
    half = _TIME_SIZE // 2
    rates = torch.exp(torch.arange(half, device=time.device) * (math.log(1000.0) / half))
    angles = time[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
