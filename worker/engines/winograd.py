"""3x3 convolutions by a quarter of the multiplications: Winograd's F(4x4, 3x3) in plain matrix products.

Each 4x4 tile of the answer takes 36 products for a pair of channels instead of 144
(https://arxiv.org/abs/1509.09308). Pictures are (height, width, channels), float32, on the CPU; what lies past their
edges is their mirror image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TILE = 4
_WINDOW = TILE + 2  # a tile is computed from a window of this side
POSITIONS = _WINDOW * _WINDOW
_TILES_AT_ONCE = 64  # enough for matrix products to be fast, few enough for what is between them to stay in cache

_INTO_WINDOW = torch.tensor(
    [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
        [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ]
)
_INTO_WEIGHTS = torch.tensor(
    [
        [1 / 4, 0.0, 0.0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0.0, 0.0, 1.0],
    ],
    dtype=torch.float64,
)
_INTO_ANSWER = torch.tensor(
    [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
    ]
)
_BIAS_POSITION = 7  # the product of (1, 1) is in each of the 16 pixels once: a bias added there is added everywhere
_WEIGHTS_2D = torch.kron(_INTO_WEIGHTS, _INTO_WEIGHTS).float()
_ANSWER_2D = torch.kron(_INTO_ANSWER, _INTO_ANSWER)


def kept_weights(weight: Tensor) -> Tensor:
    """A convolution's weights (out, in, 3, 3) as ``Workplace.convolve`` wants them: (9, in * out).

    They are transformed, to four times the size, anew for each picture: kept so, they would not pay for their memory.
    """
    return weight.permute(2, 3, 1, 0).reshape(9, -1).contiguous()


class Workplace:
    """Where pictures of one size are convolved, one after another: how they are cut into tiles, and room to work in."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        self.height, self.width, self.channels = height, width, channels
        self.rows, self.columns = -(-height // TILE), -(-width // TILE)
        at_once = min(self.rows, max(1, _TILES_AT_ONCE // self.columns))
        self._blocks = [(first, min(first + at_once, self.rows)) for first in range(0, self.rows, at_once)]
        self._windows = torch.empty(POSITIONS * at_once * self.columns * channels)
        # Past its right edge a picture has its mirror image for one pixel; what comes after goes into no answer.
        self._strip = torch.zeros(_WINDOW, self.columns * TILE + 2, channels)
        self._steps = torch.empty(4, _WINDOW, self.columns, channels)
        self._weights: dict[int, Tensor] = {}
        self._products: dict[int, Tensor] = {}

    def convolve(self, picture: Tensor, convolutions: Sequence[tuple[Tensor, Tensor]], out: Tensor) -> None:
        """Several convolutions of one picture, their answers one after another in the channels of ``out``.

        Each is (kept weights, bias); it takes as many of the picture's channels, from the first, as it has weights for.
        """
        ready = []
        for place, (kept, bias) in enumerate(convolutions):
            weights = self._weights.get(place)
            if weights is None or weights.shape[1] != kept.shape[1]:
                weights = self._weights[place] = torch.empty(POSITIONS, kept.shape[1])
            torch.mm(_WEIGHTS_2D, kept, out=weights)
            ready.append((weights.view(POSITIONS, -1, bias.shape[0]), bias))
        for first, last in self._blocks:
            tiles = (last - first) * self.columns
            windows = self._windows[: POSITIONS * tiles * self.channels].view(POSITIONS, tiles, self.channels)
            by_two = windows.view(_WINDOW, _WINDOW, tiles, self.channels)
            for row in range(first, last):
                self._transform_down(picture, row)
                begin = (row - first) * self.columns
                self._transform_across(by_two[:, :, begin : begin + self.columns])
            channel = 0
            for weights, bias in ready:
                products = self._products_for(tiles, weights.shape[2])
                torch.bmm(windows[:, :, : weights.shape[1]], weights, out=products)
                products[_BIAS_POSITION] += bias
                lines = out[first * TILE : last * TILE, :, channel : channel + weights.shape[2]]
                self._transform_back(products, last - first, out=lines)
                channel += weights.shape[2]

    def _products_for(self, tiles: int, channels: int) -> Tensor:
        wanted = POSITIONS * tiles * channels
        room = self._products.get(channels)
        if room is None or room.numel() < wanted:
            room = self._products[channels] = torch.empty(wanted)
        return room[:wanted].view(POSITIONS, tiles, channels)

    def _transform_down(self, picture: Tensor, row: int) -> None:
        top = row * TILE - 1
        if top >= 0 and top + _WINDOW <= self.height:
            lines = picture[top : top + _WINDOW]
        else:
            lines = picture[[self._mirrored(line) for line in range(top, top + _WINDOW)]]
        strip, width = self._strip, self.width
        torch.mm(_INTO_WINDOW, lines.flatten(1), out=strip[:, 1 : width + 1].flatten(1))
        strip[:, 0] = strip[:, 2]
        strip[:, width + 1] = strip[:, width - 1]

    def _mirrored(self, line: int) -> int:
        if line > self.height:
            return 0  # in no answer
        return abs(line) if line < self.height else self.height - 2

    def _transform_across(self, out: Tensor) -> None:
        """``_INTO_WINDOW`` again, in steps that share what is common: its products would need a copy of the strip."""
        span = (self.columns - 1) * TILE + 1
        w0, w1, w2, w3, w4, w5 = (self._strip[:, k : k + span : TILE] for k in range(_WINDOW))
        a, b, c, d = self._steps
        torch.add(w4, w2, alpha=-4, out=a)
        torch.add(w3, w1, alpha=-4, out=b)
        torch.add(a, b, out=out[:, 1])
        torch.sub(a, b, out=out[:, 2])
        torch.sub(w4, w2, out=c)
        torch.sub(w3, w1, out=d)
        torch.add(c, d, alpha=2, out=out[:, 3])
        torch.add(c, d, alpha=-2, out=out[:, 4])
        torch.sub(w0, w2, out=a)
        torch.add(c, a, alpha=4, out=out[:, 0])
        torch.sub(w5, w3, out=b)
        torch.add(b, d, alpha=-4, out=out[:, 5])

    def _transform_back(self, products: Tensor, rows: int, out: Tensor) -> None:
        pixels = torch.mm(_ANSWER_2D, products.flatten(1)).view(TILE, TILE, rows, self.columns, -1)
        pixels = pixels.permute(2, 0, 3, 1, 4)
        if out.shape[:2] == (rows * TILE, self.columns * TILE):
            out.view(rows, TILE, self.columns, TILE, -1).copy_(pixels)
        else:  # the last tiles reach past the picture's edge
            whole = pixels.reshape(rows * TILE, self.columns * TILE, -1)
            out.copy_(whole[: out.shape[0], : out.shape[1]])
