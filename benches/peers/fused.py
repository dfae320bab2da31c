"""What `wgnorm bench` fuses, as PyTorch on the CPU would be given it: gated RMS norm, RMS norm to int8 by rows, batch norm with mish; and layer norm over the channels of each position of
[32, 96, 56, 56], as ConvNeXt has it. Medians in ms.

    pip install torch
    python fused.py [ROWS WIDTH]

The same of wgnorm:

    cargo wgnorm bench --norm rms --shape ROWS,WIDTH --activation silu --gate last     # first, too
    cargo wgnorm bench --norm rms --shape ROWS,WIDTH --int8
    cargo wgnorm bench --shape ROWS,WIDTH --op inference --activation mish
    cargo wgnorm bench --norm layer --axes 1 --shape 32,96,56,56
"""

import statistics
import sys
import time

import torch
import torch.nn.functional as F

torch.manual_seed(0)
rows, width = (int(arg) for arg in sys.argv[1:3]) if len(sys.argv) > 2 else (4096, 2048)
x, gate, dy = (torch.randn(rows, width) for _ in range(3))
weight = torch.randn(width)


def median(run, repetitions=12):
    run()
    times = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def last(x, gate, weight):
    return F.rms_norm(x, (width,), weight) * F.silu(gate)


def first(x, gate, weight):
    return F.rms_norm(x * F.silu(gate), (width,), weight)


def int8(x, weight):
    y = F.rms_norm(x, (width,), weight)
    scale = y.abs().amax(-1, keepdim=True) / 127
    return (y / scale).round().clamp(-128, 127).to(torch.int8), scale


def step(function):
    tensors = [tensor.clone().requires_grad_() for tensor in (x, gate, weight)]

    def run():
        function(*tensors).backward(dy)
        for tensor in tensors:
            tensor.grad = None

    return run


batch_norm = torch.nn.BatchNorm1d(width).eval()
with torch.no_grad():
    runs = {
        "rms": lambda: F.rms_norm(x, (width,), weight),
        "gate last: forward": lambda: last(x, gate, weight),
        "gate first: forward": lambda: first(x, gate, weight),
        "int8": lambda: int8(x, weight),
        "batch norm, mish: inference": lambda: F.mish(batch_norm(x)),
    }
    times = {name: median(run) for name, run in runs.items()}
times |= {f"gate {name}: forward and backward": median(step(run)) for name, run in (("last", last), ("first", first))}


def channels_by_permuting(images, weight, bias):
    # torchvision's LayerNorm2d.
    return F.layer_norm(images.permute(0, 2, 3, 1), weight.shape, weight, bias).permute(0, 3, 1, 2)


def channels_by_hand(images, weight, bias):
    # ConvNeXt's own, in its repository.
    mean = images.mean(1, keepdim=True)
    variance = (images - mean).pow(2).mean(1, keepdim=True)
    xhat = (images - mean) / torch.sqrt(variance + 1e-6)
    return weight[:, None, None] * xhat + bias[:, None, None]


images, channel = torch.randn(32, 96, 56, 56), torch.randn(96)
d_images = torch.randn_like(images)
for name, norm in (("permuting", channels_by_permuting), ("by hand", channels_by_hand)):
    with torch.no_grad():
        # As convolutions want it.
        times[f"channels, {name}: forward"] = median(lambda: norm(images, channel, channel).contiguous(), 5)
    leaves = [tensor.clone().requires_grad_() for tensor in (images, channel, channel)]

    def train():
        norm(*leaves).contiguous().backward(d_images)
        for leaf in leaves:
            leaf.grad = None

    times[f"channels, {name}: forward and backward"] = median(train, 5)
print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, float32 {rows} x {width}")
for name, ms in times.items():
    print(f"{name:<36} {ms:8.1f} ms")
