"""The big-lama network: built from a checkpoint's tensors, and turned into the form that a device runs fastest.

``Generator`` is the network as it was published (https://arxiv.org/abs/2109.07161), in plain eager torch, under the
checkpoint's names. ``fast_form`` makes of it what is run: the same function, rearranged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812 - its name wherever torch is written
from torch import Tensor, nn

from worker.engines import winograd

__all__ = [
    "Generator",
    "NotThisNetwork",
    "Precision",
    "expected_shapes",
    "fast_form",
    "generator_from",
    "random_tensors",
]

Precision = Literal["fp32", "bf16", "fp16"]

_KEY = "model.1.ffc.convl2l.weight"  # every checkpoint of this family has one key that ends so
_COUNTER = "num_batches_tracked"


class NotThisNetwork(ValueError):
    """These tensors are not a big-lama generator: names are missing, or shapes are others."""


# --- the network as published ---------------------------------------------------------------------------------------


class _FourierUnit(nn.Module):
    """A 1x1 convolution of the picture's spectrum: each of its answers has seen the whole picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)  # real and imaginary parts
        self.bn = nn.BatchNorm2d(2 * channels)

    def forward(self, s: Tensor) -> Tensor:
        spectrum = _real(torch.fft.rfft2(s, norm="ortho"))
        spectrum = F.relu(self.bn(self.conv_layer(spectrum)))
        answer: Tensor = torch.fft.irfft2(_complex(spectrum), s=s.shape[-2:], norm="ortho")
        return answer


class _SpectralTransform(nn.Module):
    """Global features to global features: a Fourier unit between two 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Sequential(nn.Conv2d(channels, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.fu = _FourierUnit(half)
        self.conv2 = nn.Conv2d(half, channels, 1, bias=False)

    def forward(self, g: Tensor) -> Tensor:
        s = self.conv1(g)
        answer: Tensor = self.conv2(s + self.fu(s))
        return answer


def _real(spectrum: Tensor) -> Tensor:
    """(B, C, h, w) complex to (B, 2C, h, w) real: each channel's real part, then its imaginary part."""
    batch, channels, height, width = spectrum.shape
    return torch.view_as_real(spectrum).permute(0, 1, 4, 2, 3).reshape(batch, 2 * channels, height, width)


def _complex(spectrum: Tensor) -> Tensor:
    return torch.complex(spectrum[:, 0::2], spectrum[:, 1::2])


class _Convolutions(nn.Module):
    """Those of one layer, from local and global features to local and global features, as far as it has them."""

    def __init__(self, inputs: tuple[int, int], outputs: tuple[int, int], size: int, *, stride: int = 1) -> None:
        super().__init__()

        def convolution(into: int, out: int) -> nn.Conv2d:
            return nn.Conv2d(into, out, size, stride, size // 2, padding_mode="reflect", bias=False)

        self.convl2l = convolution(inputs[0], outputs[0])
        if outputs[1]:
            self.convl2g = convolution(inputs[0], outputs[1])
        if inputs[1]:
            self.convg2l = convolution(inputs[1], outputs[0])
            self.convg2g = _SpectralTransform(outputs[1])


class _Layer(nn.Module):
    """Convolutions, BatchNorm and ReLU on (local, global) features; without global features the second is None."""

    def __init__(self, inputs: tuple[int, int], outputs: tuple[int, int], size: int, *, stride: int = 1) -> None:
        super().__init__()
        self.ffc = _Convolutions(inputs, outputs, size, stride=stride)
        self.bn_l = nn.BatchNorm2d(outputs[0])
        if outputs[1]:
            self.bn_g = nn.BatchNorm2d(outputs[1])

    def forward(self, features: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        local, world = features
        new_local = self.ffc.convl2l(local)
        new_world = self.ffc.convl2g(local) if hasattr(self, "bn_g") else None
        if world is not None:
            new_local = new_local + self.ffc.convg2l(world)
            new_world = new_world + self.ffc.convg2g(world)
        return F.relu(self.bn_l(new_local)), None if new_world is None else F.relu(self.bn_g(new_world))


class _Block(nn.Module):
    def __init__(self, parts: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = _Layer(parts, parts, 3)
        self.conv2 = _Layer(parts, parts, 3)

    def forward(self, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        local, world = self.conv2(self.conv1(features))
        return features[0] + local, features[1] + world


class Generator(nn.Module):
    """The published network, plain. ``ngf``: channels after its first layer (big-lama: 64); ``blocks``: 18 there.

    Called with an image (B, 3, H, W) of 0..1 and a mask (B, 1, H, W) of 0 and 1, 1 where it is to fill; H and W
    multiples of 8, at least 16. Answers its prediction of the whole picture, (B, 3, H, W) of 0..1.
    """

    def __init__(self, ngf: int, blocks: int) -> None:
        super().__init__()
        self.ngf, self.blocks = ngf, blocks
        parts = (2 * ngf, 6 * ngf)  # a quarter of the channels is local, the rest sees the whole picture
        layers: list[nn.Module] = [
            nn.Identity(),  # the places of layers without weights are kept: names carry positions
            _Layer((4, 0), (ngf, 0), 7),
            _Layer((ngf, 0), (2 * ngf, 0), 3, stride=2),
            _Layer((2 * ngf, 0), (4 * ngf, 0), 3, stride=2),
            _Layer((4 * ngf, 0), parts, 3, stride=2),
        ]
        layers += [_Block(parts) for _ in range(blocks)]
        layers.append(nn.Identity())
        for channels in (8 * ngf, 4 * ngf, 2 * ngf):
            up = nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1)
            layers += [up, nn.BatchNorm2d(channels // 2), nn.ReLU()]
        layers += [nn.Identity(), nn.Conv2d(ngf, 3, 7, padding=3, padding_mode="reflect"), nn.Sigmoid()]
        self.model = nn.ModuleList(layers)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        _check_sizes(image, mask)
        features: tuple[Tensor, Tensor | None] = (torch.cat([image * (1 - mask), mask], dim=1), None)
        trunk_ends = 5 + self.blocks
        for layer in self.model[1:trunk_ends]:
            features = layer(features)
        whole = torch.cat([part for part in features if part is not None], dim=1)
        for layer in self.model[trunk_ends:]:
            whole = layer(whole)
        return whole


def _check_sizes(image: Tensor, mask: Tensor) -> None:
    batch, channels, height, width = image.shape
    if channels != 3 or mask.shape != (batch, 1, height, width):
        raise ValueError(
            f"LaMa takes an image (batch, 3, height, width) and a mask (batch, 1, height, width), "
            f"not {tuple(image.shape)} and {tuple(mask.shape)}"
        )
    if height % 8 or width % 8 or min(height, width) < 16:
        raise ValueError(
            f"LaMa takes sides that are multiples of 8 and at least 16, not {width}x{height}; pad the picture first"
        )


# --- from a checkpoint's tensors ------------------------------------------------------------------------------------


def expected_shapes(ngf: int = 64, blocks: int = 18) -> dict[str, torch.Size]:
    """Name and shape of every entry of such a network's checkpoint, counters included, in its order."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Generator(ngf, blocks).state_dict().items()}


def generator_from(tensors: Mapping[str, Tensor]) -> Generator:
    """The network of which ``tensors`` is the checkpoint, whatever stands in front of its names.

    Float32 tensors are used as they are, not copied: a memory-mapped file stays one.

    Raises:
        NotThisNetwork: says which names are missing, or have other shapes than this network's.
    """
    prefix = _prefix(tensors)
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    ngf = found[_KEY].shape[0] if found[_KEY].dim() == 4 else 0
    blocks = 0
    while f"model.{5 + blocks}.conv1.ffc.convl2l.weight" in found:
        blocks += 1
    if not ngf or not blocks:
        raise NotThisNetwork(
            f"not a big-lama network: {prefix}{_KEY} has the shape {tuple(found[_KEY].shape)} and "
            f"{blocks} residual blocks follow"
        )
    wanted = {name: shape for name, shape in expected_shapes(ngf, blocks).items() if not name.endswith(_COUNTER)}
    missing = [name for name in wanted if name not in found]
    odd = [
        f"{name} is {_described(found[name])}, not {tuple(shape)} of real numbers"
        for name, shape in wanted.items()
        if name in found and (found[name].shape != shape or not found[name].is_floating_point())
    ]
    strangers = [
        name for name in found if name.startswith("model.") and name not in wanted and not name.endswith(_COUNTER)
    ]
    troubles = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("of another kind", odd), ("that it does not have", strangers))
        if names
    ]
    if troubles:
        raise NotThisNetwork(f"not a big-lama network of {ngf} channels and {blocks} blocks; {'; '.join(troubles)}")
    with torch.device("meta"):
        generator = Generator(ngf, blocks)
    generator.load_state_dict(
        {name: found[name].detach().to(torch.float32) for name in wanted}, strict=False, assign=True
    )
    for module in generator.modules():  # what is left on "meta": counters, which nothing reads in inference
        if isinstance(module, nn.BatchNorm2d):
            module.register_buffer("num_batches_tracked", None)
    return generator.eval().requires_grad_(False)


def _prefix(tensors: Mapping[str, Tensor]) -> str:
    prefixes = sorted(
        {name.removesuffix(_KEY) for name in tensors if name == _KEY or name.endswith(f".{_KEY}")}, key=len
    )
    if not prefixes:
        some = ", ".join(list(tensors)[:3]) or "nothing at all"
        raise NotThisNetwork(f"not a big-lama network: no entry ends in {_KEY}; there is {some}")
    if len(prefixes) > 1:
        raise NotThisNetwork(f"more than one network in one checkpoint: under {' and under '.join(prefixes)}")
    return prefixes[0]


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def random_tensors(ngf: int = 64, blocks: int = 18, seed: int = 0) -> dict[str, Tensor]:
    """A checkpoint of random weights, the same for the same ``seed``: for benchmarks, tests, and to try things out.

    Of a size that keeps features and predictions in the range that trained weights keep them in. What it fills is no
    picture.
    """
    chance = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in expected_shapes(ngf, blocks).items():
        what = name.rpartition(".")[2]
        if what == _COUNTER:
            tensors[name] = torch.tensor(0)
        elif len(shape) == 4:
            spread = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
            tensors[name] = torch.randn(shape, generator=chance) * spread
        elif what == "running_var":
            tensors[name] = 0.5 + torch.rand(shape, generator=chance)
        else:
            tensors[name] = 0.1 * torch.randn(shape, generator=chance)
            if what == "weight":
                tensors[name] += 1
            if ".conv2.bn_" in name and what in ("weight", "bias"):  # what a block adds to its input is small
                tensors[name] *= 0.05
    return tensors


# --- the form that is run -------------------------------------------------------------------------------------------

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_STRIP_PIXELS = 32 * 512  # a CPU makes the widest layers by strips of about so many pixels, which stay in its cache


def fast_form(
    generator: Generator,
    *,
    precision: Precision = "fp32",
    device: torch.device | str = "cpu",
    with_winograd: bool = True,
) -> nn.Module:
    """The same function of image and mask as ``generator``, in the form that is fastest on ``device``.

    ``generator`` is taken apart on the way, so that its weights are never all held twice: it cannot be used afterwards.
    On a CPU fp32 is within 2e-5 of it. bf16 and fp16 keep weights and features in 16 bits, Fourier transforms in 32;
    they are right on every CPU, but faster than fp32 only where it has fast instructions for them (AMX; AMD's Zen 4).
    On a GPU fp32 is as exact as torch's setting for TF32 convolutions lets it be. ``with_winograd``: where it is the
    faster, in fp32 on a CPU.
    """
    if precision not in _DTYPES:
        raise ValueError(f"there is no precision {precision!r}; there are {', '.join(_DTYPES)}")
    place, dtype = torch.device(device), _DTYPES[precision]
    return _FastForm(generator, dtype, place, with_winograd and place.type == "cpu" and dtype == torch.float32)


class _Kept(nn.Module):
    """A module whose weights are constants, held in the type and on the device that they are used in."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.dtype, self.device = dtype, device

    def _keep(self, name: str, tensor: Tensor) -> None:
        layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
        kept = tensor.detach().to(self.device, self.dtype).contiguous(memory_format=layout)
        self.register_buffer(name, kept, persistent=False)


class _FastForm(_Kept):
    down0_weight: Tensor
    down0_bias: Tensor
    down1_weight: Tensor
    down1_bias: Tensor
    down2_weight: Tensor
    down2_bias: Tensor
    down3_weight: Tensor
    down3_bias: Tensor
    up2_bias: Tensor
    head_weight: Tensor
    head_bias: Tensor

    def __init__(self, generator: Generator, dtype: torch.dtype, device: torch.device, with_winograd: bool) -> None:
        super().__init__(dtype, device)
        self.with_winograd = with_winograd
        # A CPU gains nothing by more pictures or rows at once, and they would no longer fit its cache.
        self._one_by_one = device.type == "cpu"
        layers = generator.model

        def taken(place: int) -> Any:
            layer, layers[place] = layers[place], nn.Identity()
            return layer

        for number in range(4):
            layer = taken(1 + number)
            weight, bias = _folded(layer.ffc.convl2l.weight, layer.bn_l)
            if number == 3:
                world_weight, world_bias = _folded(layer.ffc.convl2g.weight, layer.bn_g)
                weight, bias = torch.cat([weight, world_weight]), torch.cat([bias, world_bias])
            self._keep(f"down{number}_weight", weight)
            self._keep(f"down{number}_bias", bias)
        kind = _WinogradLayer if with_winograd else _MergedLayer
        trunk: list[nn.Module] = []
        for place in range(5, 5 + generator.blocks):
            block = taken(place)
            trunk += [kind(block.conv1, dtype, device), kind(block.conv2, dtype, device)]
        self.trunk = nn.ModuleList(trunk)
        after = 6 + generator.blocks
        for number in range(3):
            up, bn = taken(after + 3 * number), taken(after + 3 * number + 1)
            weight, bias = _folded(up.weight, bn, up.bias, out_dim=1)
            self._keep(f"up{number}_weight", weight)
            self._keep(f"up{number}_bias", bias)
        head = taken(after + 10)
        self._keep("head_weight", _for_two_by_two(head.weight))
        self._keep("head_bias", head.bias.repeat_interleave(4))
        self.eval()

    @torch.inference_mode()
    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        _check_sizes(image, mask)
        image, mask = image.to(self.device, torch.float32), mask.to(self.device, torch.float32)
        if not self._one_by_one:
            return self._predicted(image, mask)
        return torch.cat(
            [self._predicted(*one) for one in zip(torch.split(image, 1), torch.split(mask, 1), strict=True)]
        )

    def _predicted(self, image: Tensor, mask: Tensor) -> Tensor:
        pixels = self._encoded(torch.cat([image * (1 - mask), mask], dim=1)).permute(0, 2, 3, 1).contiguous()
        place = winograd.Workplace(*pixels.shape[1:]) if self.with_winograd else None
        for first, second in zip(self.trunk[0::2], self.trunk[1::2], strict=True):
            pixels += second(first(pixels, place), place)
        del place
        return self._decoded(pixels.permute(0, 3, 1, 2))

    def _rows_at_once(self, height: int, width: int) -> int:
        if not self._one_by_one:
            return height
        return min(height, max(16, _STRIP_PIXELS // width // 2 * 2))

    def _encoded(self, x: Tensor) -> Tensor:
        """(B, 4, H, W) to (B, 8 ngf, H / 8, W / 8). The two widest layers are made together, strip by strip."""
        batch, _, height, width = x.shape
        x = _mirrored(x.to(self.dtype), 3)
        channels = self.down1_bias.shape[0]
        narrower = _room_for(x, batch, channels, height // 2, width // 2)
        step = self._rows_at_once(height, width)
        for begin in range(0, height, step):
            end = min(begin + step, height)
            top = max(begin - 1, 0)  # a strip of the second layer needs one row of the first above its own
            rows = F.conv2d(x[:, :, top : end + 6], self.down0_weight, self.down0_bias).relu_()
            narrower[:, :, begin // 2 : end // 2] = _down(rows, self.down1_weight, self.down1_bias, at_top=begin == 0)
        x = _down(narrower, self.down2_weight, self.down2_bias)
        return _down(x, self.down3_weight, self.down3_bias)

    def _decoded(self, x: Tensor) -> Tensor:
        """(B, 8 ngf, h, w) to the picture, (B, 3, 8 h, 8 w). The two widest layers are made together, by strips."""
        for number in (0, 1):
            x = self._up(x, number).relu_()
        batch, _, rows, columns = x.shape
        height, width = 2 * rows, 2 * columns
        step = self._rows_at_once(height, width)
        channels = self.up2_bias.shape[0]
        # Rows begin - 4 to end + 4 of the widest layer, with three columns of mirror image at either side.
        strip = _room_for(x, batch, channels, step + 8, width + 6)
        picture = torch.empty((batch, 3, height, width), device=x.device)
        made = 0  # rows of the widest layer
        for begin in range(0, height, step):
            end = min(begin + step, height)
            if begin:
                strip[:, :, :8] = strip[:, :, step : step + 8].clone()
            needed = min(end + 4, height)
            if needed > made:
                # An odd row is made of two rows: one more is given in, and what comes of it alone is left out.
                wide = self._up(x[:, :, made // 2 : needed // 2 + 1], 2)[:, :, : needed - made]
                place = strip[:, :, 4 + made - begin : 4 + needed - begin]
                torch.clamp_min(wide, 0, out=place[..., 3:-3])
                place[..., :3] = place[..., 4:7].flip(-1)
                place[..., -3:] = place[..., -7:-4].flip(-1)
                made = needed
            last = 4 + end - begin
            if begin == 0:
                strip[:, :, 1:4] = strip[:, :, 5:8].flip(2)
            if end == height:
                strip[:, :, last : last + 3] = strip[:, :, last - 4 : last - 1].flip(2)
            quarters = F.conv2d(strip[:, :, 1 : last + 3], self.head_weight, self.head_bias, stride=2)
            picture[:, :, begin:end] = F.pixel_shuffle(quarters.float(), 2)
        return picture.sigmoid_()

    def _up(self, x: Tensor, number: int) -> Tensor:
        weight, bias = getattr(self, f"up{number}_weight"), getattr(self, f"up{number}_bias")
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)


def _folded(
    weight: Tensor, bn: nn.BatchNorm2d, bias: Tensor | None = None, *, out_dim: int = 0
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that does what ``weight``, ``bias`` and then ``bn`` do."""
    scale, shift = _scale_and_shift(bn)
    shape = [1] * weight.dim()
    shape[out_dim] = -1
    return weight * scale.view(shape), shift if bias is None else shift + bias * scale


def _scale_and_shift(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, var = cast(Tensor, bn.running_mean), cast(Tensor, bn.running_var)
    scale = bn.weight / torch.sqrt(var + bn.eps)
    return scale, bn.bias - mean * scale


def _for_two_by_two(weight: Tensor) -> Tensor:
    """Weights (3, C, 7, 7) of the last layer, to make 2x2 pixels at once: (12, C, 8, 8), for a stride of 2.

    Three channels of output would leave most of a processor's vector idle.
    """
    out, into, size, _ = weight.shape
    four = weight.new_zeros(out, 2, 2, into, size + 1, size + 1)
    for down in (0, 1):
        for right in (0, 1):
            four[:, down, right, :, down : down + size, right : right + size] = weight
    return four.flatten(0, 2)


def _room_for(like: Tensor, batch: int, channels: int, height: int, width: int) -> Tensor:
    return torch.empty(
        (batch, channels, height, width), dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _mirrored(x: Tensor, margin: int) -> Tensor:
    """``x`` (B, C, H, W) with its mirror image around it, channels last; torch's own gives up that layout on a GPU."""
    batch, channels, height, width = x.shape
    wide = _room_for(x, batch, channels, height + 2 * margin, width + 2 * margin)
    wide[:, :, margin:-margin, margin:-margin] = x
    for step in range(1, margin + 1):
        near, far = margin - step, margin + step
        wide[:, :, near] = wide[:, :, far]
        wide[:, :, -1 - near] = wide[:, :, -1 - far]
    for step in range(1, margin + 1):
        near, far = margin - step, margin + step
        wide[..., near] = wide[..., far]
        wide[..., -1 - near] = wide[..., -1 - far]
    return wide


def _down(x: Tensor, weight: Tensor, bias: Tensor, *, at_top: bool = True) -> Tensor:
    """A 3x3 convolution of stride 2 over an even width, mirrored at the left and, ``at_top``, above; then ReLU.

    Padded with zeros, and then what the mirror image adds is added: cheaper than a copy of all with its image around.
    """
    y = F.conv2d(x, weight, bias, stride=2, padding=(int(at_top), 1))
    y[..., :1] += F.conv2d(x[..., 1:2], weight[..., :1], stride=(2, 1), padding=(int(at_top), 0))
    if at_top:
        above = torch.cat([x[:, :, 1:2, 1:2], x[:, :, 1:2]], dim=3)
        y[:, :, :1] += F.conv2d(above, weight[:, :, :1], stride=(1, 2))
    return y.relu_()


class _Spectral(_Kept):
    """The spectral transform up to its last convolution, which is for the caller to do: only he knows what to add to.

    Takes (B, h, w, C) features and answers (B, C / 2, h * w).
    """

    into: Tensor
    into_bias: Tensor
    mix: Tensor
    mix_bias: Tensor

    def __init__(self, transform: Any, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(dtype, device)
        weight, bias = _folded(transform.conv1[0].weight.flatten(1), transform.conv1[1])
        self._keep("into", weight)
        self._keep("into_bias", bias[:, None])
        weight, bias = _folded(transform.fu.conv_layer.weight.flatten(1), transform.fu.bn)
        self._keep("mix", weight)
        self._keep("mix_bias", bias[:, None])

    def forward(self, world: Tensor) -> Tensor:
        batch, height, width, _ = world.shape
        channels, half = self.into.shape[0], width // 2 + 1
        s = _product(self.into, world.flatten(1, 2).mT).add_(self.into_bias).relu_()
        s = s.float().view(batch, channels, height, width)
        waves = torch.view_as_real(torch.fft.rfft2(s, norm="ortho")).permute(0, 1, 4, 2, 3)
        parts = waves.contiguous().to(self.dtype).view(batch, 2 * channels, -1)
        mixed = _product(self.mix, parts).add_(self.mix_bias).relu_().float()
        mixed = mixed.view(batch, channels, 2, height, half).permute(0, 1, 3, 4, 2).contiguous()
        s += torch.fft.irfft2(torch.view_as_complex(mixed), s=(height, width), norm="ortho")
        return s.flatten(2).to(self.dtype)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Of matrices, or of one with each of a batch. Batched, a CPU would copy each transposed operand first."""
    return torch.mm(left, right[0])[None] if right.shape[0] == 1 else torch.matmul(left, right)


class _MergedLayer(_Kept):
    """A layer of the trunk by two 3x3 convolutions: all features to the local ones, the local ones to the global."""

    to_local: Tensor
    local_bias: Tensor
    to_world: Tensor
    world_bias: Tensor
    out_of_spectral: Tensor

    def __init__(self, layer: Any, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(dtype, device)
        parts = layer.ffc
        self.local = parts.convl2l.weight.shape[0]
        weight = torch.cat([parts.convl2l.weight, parts.convg2l.weight], dim=1)
        weight, bias = _folded(weight, layer.bn_l)
        self._keep("to_local", weight)
        self._keep("local_bias", bias)
        weight, bias = _folded(parts.convl2g.weight, layer.bn_g)
        self._keep("to_world", weight)
        self._keep("world_bias", bias)
        scale, _ = _scale_and_shift(layer.bn_g)
        self._keep("out_of_spectral", (parts.convg2g.conv2.weight.flatten(1) * scale[:, None]).T)
        self.spectral = _Spectral(parts.convg2g, dtype, device)

    def forward(self, pixels: Tensor, place: object) -> Tensor:
        """(B, h, w, C) to the same; the local features are the first of C."""
        wide = _mirrored(pixels.permute(0, 3, 1, 2), 1)
        local = F.conv2d(wide, self.to_local, self.local_bias).permute(0, 2, 3, 1)
        world = F.conv2d(wide[:, : self.local], self.to_world, self.world_bias).permute(0, 2, 3, 1).contiguous()
        del wide
        spectral = self.spectral(pixels[..., self.local :])
        for flat, waves in zip(world.flatten(1, 2), spectral, strict=True):
            flat.addmm_(waves.T, self.out_of_spectral)
        return torch.cat([local, world], dim=3).relu_()


class _WinogradLayer(_Kept):
    """The same layer by Winograd's convolutions: of one picture, fp32, on a CPU."""

    to_local: Tensor
    local_bias: Tensor
    to_world: Tensor
    world_bias: Tensor
    out_of_spectral: Tensor

    def __init__(self, layer: Any, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(dtype, device)
        parts = layer.ffc
        self.local = parts.convl2l.weight.shape[0]
        to_local, local_bias = _folded(torch.cat([parts.convl2l.weight, parts.convg2l.weight], dim=1), layer.bn_l)
        to_world, world_bias = _folded(parts.convl2g.weight, layer.bn_g)
        self._keep("to_local", winograd.kept_weights(to_local))
        self._keep("to_world", winograd.kept_weights(to_world))
        self._keep("local_bias", local_bias)
        self._keep("world_bias", world_bias)
        scale, _ = _scale_and_shift(layer.bn_g)
        self._keep("out_of_spectral", (parts.convg2g.conv2.weight.flatten(1) * scale[:, None]).T)
        self.spectral = _Spectral(parts.convg2g, dtype, device)

    def forward(self, pixels: Tensor, place: winograd.Workplace) -> Tensor:
        """(1, h, w, C) to the same; the local features are the first of C."""
        answer = torch.empty_like(pixels)
        spectral = self.spectral(pixels[..., self.local :])[0]
        convolutions = [(self.to_local, self.local_bias), (self.to_world, self.world_bias)]
        place.convolve(pixels[0], convolutions, out=answer[0])
        answer.flatten(0, 2)[:, self.local :].addmm_(spectral.T, self.out_of_spectral)
        return answer.relu_()
