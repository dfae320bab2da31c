#!/usr/bin/env python3
"""Times PyTorch's norms (batch, layer, RMS, group, spectral, switchable; over segments of rows those of PyTorch Geometric) over the cases of a `wgnorm bench --json` file, and writes the same JSON.

Operations are called as ATen has them, so backward is timed alone and no autograd counts; `train_step` is what a user
calls instead: torch.nn.functional.layer_norm, say, and autograd. RMS norm, and everything that torch.compile has made
(--kernels compiled), has no such names: its backward is that of a graph of autograd that is kept. On a CPU the clock is
the wall's. On CUDA a graph of many repetitions is captured and replayed between two events, so launches from the host do
not count.

Each result is compared with a float64 evaluation of the formula, on the same device, before it is timed. What is off is
timed all the same, and says so (`checked`, `check_ratio`). A copy of the same size takes turns with every operation.

Requirements:  pip install torch numpy, and torch_geometric for norms over segments

Usage:
    python pytorch.py --cases wgnorm.json --json pytorch.json
    python pytorch.py --cases wgnorm.json --json cudnn.json --device cuda --kernels cudnn
    python pytorch.py --cases wgnorm.json --json compiled.json --kernels compiled

Exit status: 0 all right, 1 a case failed or was off, 2 usage error, missing package or device, or no case to time.
"""

import argparse
import contextlib
import datetime
import functools
import json
import math
import platform
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(f"{error}; need: pip install torch numpy", file=sys.stderr)
    sys.exit(2)

EPS, MOMENTUM = 1e-5, 0.1
LAYOUTS = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}
# Largest error of an output, as a fraction of the largest value it should have. Tells the right function from a wrong
# one; how accurate it is, is another question.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 2e-2}
# Tensors of the shape of x that an operation must move at least.
FLOORS = {"train_forward": 2, "train_backward": 3, "train_step": 5, "inference": 2, "frozen_backward": 3, "tangent": 3,
          "second_backward": 5}
DERIVATIVES = ("tangent", "second_backward")

# One sample should last this long, as in `wgnorm bench`. A node of a CUDA graph costs next to nothing, so more of them.
SAMPLE_NS = 4e6
MOST_REPEATS = {"cpu": 64, "cuda": 256}


class Refusal(Exception):
    """Why nothing can be timed."""


# ---------------------------------------------------------------- clocks

class CpuClock:
    """Wall time of repeated calls."""

    def stream(self):
        return contextlib.nullcontext()

    def prepare(self, call):
        """Returns a function that takes one sample: nanoseconds of a call by (device, wall)."""
        def timed(repeats):
            started = time.perf_counter_ns()
            for _ in range(repeats):
                call()
            return (time.perf_counter_ns() - started) / repeats
        timed(1)
        repeats = repeats_for(timed(1), "cpu")
        return lambda: (None, timed(repeats))


class CudaClock:
    """Device time of a CUDA graph of repeated calls, between two events."""

    def stream(self):
        """All work goes to one stream that is not the default: capture wants such a one, and autograd runs a backward pass
        on the stream of its forward pass."""
        return torch.cuda.stream(torch.cuda.Stream())

    def prepare(self, call):
        # What a library sets up on its first calls must not be captured.
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        graph = self.capture(call, 1)
        self.sample(graph, 1)
        repeats = repeats_for(self.sample(graph, 1)[0], "cuda")
        graph = self.capture(call, repeats)
        self.sample(graph, repeats)
        return lambda: self.sample(graph, repeats)

    @staticmethod
    def capture(call, repeats):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            for _ in range(repeats):
                # The result is dropped, so the next repetition writes to the same memory.
                call()
        return graph

    @staticmethod
    def sample(graph, repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        started = time.perf_counter_ns()
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        wall = (time.perf_counter_ns() - started) / repeats
        return start.elapsed_time(end) * 1e6 / repeats, wall


def repeats_for(ns, device):
    return max(1, min(MOST_REPEATS[device], int(SAMPLE_NS / max(ns, 1.0))))


def spread(samples):
    """Median, minimum and 90th percentile; None where a clock is missing."""
    if any(sample is None for sample in samples):
        return None
    ordered = sorted(samples)
    # Half up, as Rust rounds; Python's round() would take the even neighbour.
    at = lambda quantile: ordered[math.floor((len(ordered) - 1) * quantile + 0.5)]
    return {"median": at(0.5), "min": at(0.0), "p90": at(0.9)}


def time_beside_copy(clock, call, copy, samples):
    """Spreads by (device, wall) of a call and of a copy; they take turns, so that a drifting machine slows both."""
    takes = [clock.prepare(work) for work in (call, copy)]
    taken = [[], []]
    for _ in range(samples):
        for take, into in zip(takes, taken):
            into.append(take())
    return [tuple(spread([sample[clock] for sample in each]) for clock in (0, 1)) for each in taken]


# ---------------------------------------------------------------- operations

class Layer:
    """Tensors of one shape, element type and layout, and what is done with them."""

    def __init__(self, shape, dtype, layout, device, kernels, parameters, parameter_dtype):
        generator = torch.Generator().manual_seed(1)
        memory = {"memory_format": LAYOUTS[layout]} if len(shape) == 4 else {}
        self.uniform = lambda *dims: torch.rand(dims, generator=generator) * 2 - 1
        stored = lambda values: values.to(device=device, dtype=dtype).contiguous(**memory)
        self.device, self.kernels = device, kernels
        self.x, self.dy = stored(2 * self.uniform(*shape) + 0.5), stored(self.uniform(*shape))
        self.copied = torch.empty_like(self.x)
        per_parameter = lambda shift: (0.5 * self.uniform(parameters) + shift).to(device, parameter_dtype)
        self.gamma, self.beta = per_parameter(1.0), per_parameter(0.0)
        self.made, self.kept, self.stepped, self.tangents = {}, None, None, None

    def parameters(self):
        return [self.gamma, self.beta]

    def function(self, training, x, *parameters):
        """y, as torch.nn.functional has it."""
        raise NotImplementedError

    def forward(self, training):
        """y and, by ATen's names, what backward needs."""
        return [self.function(training, self.x, *self.parameters())]

    def backward(self):
        """The gradients, by ATen's names if it has any."""
        return self.kept_backward()

    def called(self, training):
        """The function, compiled if it is to be: for this very shape."""
        if training not in self.made:
            function = functools.partial(self.function, training)
            compiled = self.kernels == "compiled"
            self.made[training] = torch.compile(function, dynamic=False) if compiled else function
        return self.made[training]

    def leaves(self):
        return [tensor.clone().requires_grad_() for tensor in (self.x, *self.parameters())]

    def training(self, leaves):
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=self.kernels == "cudnn"):
            return self.called(True)(*leaves)

    def kept_backward(self):
        """The gradients by autograd, of a forward pass that has run before."""
        if self.kept is None:
            leaves = self.leaves()
            self.kept = leaves, self.training(leaves)
        leaves, y = self.kept
        return torch.autograd.grad(y, leaves, self.dy, retain_graph=True)

    def directions(self):
        """Tangents of x and the parameters."""
        if self.tangents is None:
            like = lambda values: torch.empty_like(values).copy_(self.uniform(*values.shape))
            self.tangents = [like(self.x), *map(like, self.parameters())]
        return self.tangents

    def jvp(self):
        """The tangent of y. The forward pass is part of it, because forward mode is given no graph."""
        function = functools.partial(self.function, True)
        return [torch.func.jvp(function, (self.x, *self.parameters()), tuple(self.directions()))[1]]

    def differentiable(self, dtype):
        """Leaves, with dy the first, and the gradients of a graph that can be differentiated again."""
        leaves = [tensor.to(dtype).clone().requires_grad_() for tensor in (self.dy, self.x, *self.parameters())]
        with torch.enable_grad():
            y = self.function(True, *leaves[1:])
            return leaves, torch.autograd.grad(y, leaves[1:], leaves[0], create_graph=True)

    def double_backward(self):
        """The gradients of gradients, of passes that have run before."""
        if self.kept is None:
            self.kept = self.differentiable(self.x.dtype)
        leaves, gradients = self.kept
        return torch.autograd.grad(gradients, leaves, self.directions(), retain_graph=True, allow_unused=True)[:-1]

    def expected_derivatives(self, op):
        """By PyTorch's own derivatives in float64."""
        double = lambda tensors: [tensor.double() for tensor in tensors]
        directions = double(self.directions())
        if op == "tangent":
            primals = tuple(double((self.x, *self.parameters())))
            return [torch.func.jvp(functools.partial(self.function, True), primals, tuple(directions))[1]]
        leaves, gradients = self.differentiable(torch.float64)
        return torch.autograd.grad(gradients, leaves, directions, allow_unused=True)[:-1]

    def step(self):
        """What a user calls. The graph of autograd is made anew each time."""
        y = self.training(self.stepped)
        return (y.detach(), *torch.autograd.grad(y, self.stepped, self.dy))

    def call(self, op):
        """A function without arguments that does an operation once and returns its outputs."""
        compiled = self.kernels == "compiled"
        self.kept = None
        self.stepped = self.leaves() if op == "train_step" or compiled else None
        calls = {
            "train_forward": lambda: self.forward(True)[:1],
            "train_backward": self.kept_backward if compiled else self.backward,
            "train_step": self.step,
            "inference": lambda: self.forward(False)[:1],
            "tangent": self.jvp,
            "second_backward": self.double_backward,
        }
        if compiled:
            # What it saves for a backward pass, it saves only where there can be one.
            calls["train_forward"] = lambda: [self.training(self.stepped).detach()]
            calls["inference"] = lambda: [self.called(False)(self.x, *self.parameters())]
        return calls[op]

    def copy(self):
        return self.copied.copy_(self.x)


class BatchNorm(Layer):
    def __init__(self, shape, dtype, layout, device, kernels, groups):
        # Parameters and statistics are float32 for every element type, as usual in mixed precision.
        super().__init__(shape, dtype, layout, device, kernels, shape[1], torch.float32)
        per_channel = lambda shift, scale: (scale * self.uniform(shape[1]) + shift).to(device)
        self.mean, self.var = per_channel(0.5, 0.1), per_channel(1.3, 0.2)
        self.running = [self.mean.clone(), self.var.clone()]
        self.saved = None if kernels == "compiled" else self.forward(True)[1:]

    def function(self, training, x, gamma, beta):
        running = self.running if training else [self.mean, self.var]
        if x.dtype == torch.float64:
            running = [values.double() for values in running]
        return F.batch_norm(x, *running, gamma, beta, training, MOMENTUM, EPS)

    def forward(self, training):
        """y, mean, inverse standard deviation and, of cuDNN, its reserve."""
        of = torch.ops.aten.cudnn_batch_norm if self.kernels == "cudnn" else torch.ops.aten.native_batch_norm
        running = self.running if training else [self.mean, self.var]
        return of(self.x, self.gamma, self.beta, *running, training, MOMENTUM, EPS)

    def backward(self):
        if self.kernels == "cudnn":
            mean, inv_std, reserve = self.saved
            return torch.ops.aten.cudnn_batch_norm_backward(
                self.x, self.dy, self.gamma, *self.running, mean, inv_std, EPS, reserve)
        return self.native_backward(*self.running, *self.saved, True)

    def native_backward(self, mean, var, saved_mean, saved_inv_std, training):
        return torch.ops.aten.native_batch_norm_backward(
            self.dy, self.x, self.gamma, mean, var, saved_mean, saved_inv_std, training, EPS, [True, True, True])

    def call(self, op):
        if op == "frozen_backward":
            return lambda: self.native_backward(self.mean, self.var, None, None, False)
        return super().call(op)

    def expected(self, op):
        """The outputs by the formula, in float64."""
        along = [1, -1] + [1] * (self.x.dim() - 2)
        per_channel = lambda values: values.double().view(along)
        over = [axis for axis in range(self.x.dim()) if axis != 1]
        x, dy = self.x.double(), self.dy.double()
        if op in ("inference", "frozen_backward"):
            mean, var = per_channel(self.mean), per_channel(self.var)
        else:
            mean = x.mean(over, keepdim=True)
            var = (x - mean).square().mean(over, keepdim=True)
        inv_std = (var + EPS).rsqrt()
        x_hat = (x - mean) * inv_std
        y = x_hat * per_channel(self.gamma) + per_channel(self.beta)
        if op in ("train_forward", "inference"):
            return [y]
        dgamma, dbeta = (dy * x_hat).sum(over), dy.sum(over)
        dx = dy
        if op != "frozen_backward":
            count = x.numel() // x.size(1)
            dx = dy - per_channel(dbeta) / count - x_hat * per_channel(dgamma) / count
        gradients = [dx * per_channel(self.gamma) * inv_std, dgamma, dbeta]
        return [y, *gradients] if op == "train_step" else gradients


class SliceNorm(Layer):
    """A norm whose statistics are those of the tensor at hand: slices are the rows of `sliced`."""

    centred = True
    # That of the parameters.
    axis = -1

    def sliced(self, values):
        """Values `[slices, of each]`."""
        raise NotImplementedError

    def along(self, parameter):
        """A parameter for each value, as a tensor that goes with x."""
        raise NotImplementedError

    def expected(self, op):
        """The outputs by the formula, in float64."""
        x, dy = self.x.double(), self.dy.double()
        gamma, *beta = [self.along(parameter.double()) for parameter in self.parameters()]
        slices = self.sliced(x)
        mean = slices.mean(1, keepdim=True) if self.centred else 0.0
        inv_std = ((slices - mean).square().mean(1, keepdim=True) + self.eps()).rsqrt()
        x_hat = ((slices - mean) * inv_std).reshape(x.shape)
        y = x_hat * gamma + (beta[0] if beta else 0.0)
        if op in ("train_forward", "inference"):
            return [y]
        over = [axis for axis in range(x.dim()) if axis != self.axis % x.dim()]
        parameters = [(dy * x_hat).sum(over), dy.sum(over)][:1 + len(beta)]
        weighted, x_hat = self.sliced(dy * gamma), self.sliced(x_hat)
        dx = weighted - x_hat * (weighted * x_hat).mean(1, keepdim=True)
        if self.centred:
            dx -= weighted.mean(1, keepdim=True)
        gradients = [(dx * inv_std).reshape(x.shape), *parameters]
        return [y, *gradients] if op == "train_step" else gradients

    def eps(self):
        return EPS


class LayerNorm(SliceNorm):
    """Parameters are of the type of x: CUDA's kernels take no other."""

    def __init__(self, shape, dtype, layout, device, kernels, groups):
        super().__init__(shape, dtype, layout, device, kernels, shape[-1], dtype)
        self.normalized = [shape[-1]]

    def function(self, training, x, gamma, beta):
        return F.layer_norm(x, self.normalized, gamma, beta, EPS)

    def forward(self, training):
        return torch.ops.aten.native_layer_norm(self.x, self.normalized, self.gamma, self.beta, EPS)

    def backward(self):
        if self.kept is None:
            self.kept = self.forward(True)[1:]
        return torch.ops.aten.native_layer_norm_backward(
            self.dy, self.x, self.normalized, *self.kept, self.gamma, self.beta, [True, True, True])

    def sliced(self, values):
        return values.reshape(-1, *self.normalized)

    def along(self, parameter):
        return parameter


class RmsNorm(LayerNorm):
    centred = False

    def parameters(self):
        return [self.gamma]

    def function(self, training, x, gamma):
        return F.rms_norm(x, self.normalized, gamma)

    # torch.nn.functional has it by a name of its own, ATen by different ones.
    forward, backward = Layer.forward, Layer.backward

    def eps(self):
        return torch.finfo(self.x.dtype).eps


class GroupNorm(SliceNorm):
    axis = 1

    def __init__(self, shape, dtype, layout, device, kernels, groups):
        super().__init__(shape, dtype, layout, device, kernels, shape[1], dtype)
        self.groups = groups
        self.sizes = [shape[0], shape[1], math.prod(shape[2:]), groups]

    def function(self, training, x, gamma, beta):
        return F.group_norm(x, self.groups, gamma, beta, EPS)

    def forward(self, training):
        return torch.ops.aten.native_group_norm(self.x, self.gamma, self.beta, *self.sizes, EPS)

    def backward(self):
        if self.kept is None:
            self.kept = self.forward(True)[1:]
        return torch.ops.aten.native_group_norm_backward(
            self.dy, self.x, *self.kept, self.gamma, *self.sizes, [True, True, True])

    def sliced(self, values):
        return values.reshape(self.sizes[0] * self.groups, -1)

    def along(self, parameter):
        return parameter.view([1, -1] + [1] * (self.x.dim() - 2))


class SpectralNorm(Layer):
    """torch.nn.utils.spectral_norm: its hook, called as it is before each forward pass of a module in training."""

    def __init__(self, shape, dtype, layout, device, kernels, groups):
        super().__init__(shape, dtype, layout, device, kernels, 0, dtype)
        self.module = torch.nn.Module()
        self.module.weight = torch.nn.Parameter(self.x.clone())
        torch.nn.utils.spectral_norm(self.module)
        self.hook = next(iter(self.module._forward_pre_hooks.values()))

    def parameters(self):
        return []

    def function(self, training, x):
        self.module.weight_orig = torch.nn.Parameter(x) if not isinstance(x, torch.nn.Parameter) else x
        return self.hook.compute_weight(self.module, training)

    def leaves(self):
        return [torch.nn.Parameter(self.x.clone())]

    def expected(self, op):
        """The outputs by the formula, in float64: a step from the vectors as they are now."""
        matrix, u = self.x.double().flatten(1), self.module.weight_u.double()
        v = F.normalize(matrix.T @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
        sigma = u @ matrix @ v
        y, dy = matrix / sigma, self.dy.double().flatten(1)
        dx = (dy - (dy * y).sum() * torch.outer(u, v)) / sigma
        outputs = {"train_forward": [y], "train_backward": [dx], "train_step": [y, dx]}[op]
        return [values.view(self.x.shape) for values in outputs]


class SwitchableNorm(Layer):
    """SwitchNorm2d of its authors (switchablenorms/Switchable-Normalization), with the biased variances of the paper."""

    def __init__(self, shape, dtype, layout, device, kernels, groups):
        super().__init__(shape, dtype, layout, device, kernels, shape[1], torch.float32)
        self.running = [self.uniform(shape[1]).to(device), self.uniform(shape[1]).abs().to(device)]
        self.logits = [self.uniform(3).to(device), self.uniform(3).to(device)]

    def parameters(self):
        return [self.gamma, self.beta, *self.logits]

    def function(self, training, x, gamma, beta, mean_weight, var_weight):
        n, c = x.shape[:2]
        flat = x.reshape(n, c, -1)
        mean_in, var_in = flat.mean(-1, keepdim=True), flat.var(-1, keepdim=True, unbiased=False)
        temp = var_in + mean_in**2
        mean_ln, mean_bn = mean_in.mean(1, keepdim=True), mean_in.mean(0, keepdim=True)
        var_ln, var_bn = temp.mean(1, keepdim=True) - mean_ln**2, temp.mean(0, keepdim=True) - mean_bn**2
        if training and x.dtype != torch.float64:
            for running, values in zip(self.running, (mean_bn, var_bn)):
                running.mul_(0.9).add_(0.1 * values.detach().flatten())
        w, v = mean_weight.softmax(0), var_weight.softmax(0)
        mean = w[0] * mean_in + w[1] * mean_ln + w[2] * mean_bn
        var = v[0] * var_in + v[1] * var_ln + v[2] * var_bn
        y = (flat - mean) / (var + EPS).sqrt() * gamma.view(1, c, 1) + beta.view(1, c, 1)
        return y.reshape(x.shape)

    def expected(self, op):
        """The outputs by the same program in float64."""
        double = [tensor.double().requires_grad_() for tensor in (self.x, *self.parameters())]
        with torch.enable_grad():
            y = self.function(True, *double)
            gradients = torch.autograd.grad(y, double, self.dy.double())
        y = y.detach()
        return [y] if op == "train_forward" else [y, *gradients] if op == "train_step" else gradients


class SegmentNorm(Layer):
    """InstanceNorm, LayerNorm(mode="graph") or GraphNorm of PyTorch Geometric, given the segment of each row."""

    def __init__(self, name, shape, dtype, layout, device, kernels, segments):
        try:
            from torch_geometric import nn
        except ImportError as error:
            raise Refusal(f"{error}; need: pip install torch_geometric") from error
        super().__init__(shape, dtype, layout, device, kernels, shape[1], dtype)
        more = {"instance": {"affine": True}, "layer": {"mode": "graph"}, "graph": {}}[name]
        kind = {"instance": nn.InstanceNorm, "layer": nn.LayerNorm, "graph": nn.GraphNorm}[name]
        self.name, self.module = name, kind(shape[1], eps=EPS, **more).to(device, dtype)
        lengths = torch.tensor(segment_lengths(shape[0], segments))
        self.count = len(lengths)
        self.index = torch.repeat_interleave(torch.arange(self.count), lengths).to(device)
        self.alpha = (0.5 * self.uniform(shape[1]) + 0.75).to(device, dtype)
        self.names = ["weight", "bias"] + (["mean_scale"] if name == "graph" else [])

    def parameters(self):
        return [self.gamma, self.beta] + ([self.alpha] if self.name == "graph" else [])

    def function(self, training, x, *parameters):
        return torch.func.functional_call(self.module, dict(zip(self.names, parameters)), (x, self.index, self.count))

    def expected(self, op):
        """The outputs by the formula, in float64."""
        double = [tensor.double().requires_grad_() for tensor in (self.x, *self.parameters())]
        with torch.enable_grad():
            y = self.formula(*double)
            gradients = torch.autograd.grad(y, double, self.dy.double())
        y = y.detach()
        return [y] if op in ("train_forward", "inference") else [y, *gradients] if op == "train_step" else gradients

    def formula(self, x, gamma, beta, alpha=1.0):
        count = torch.bincount(self.index, minlength=self.count).double()[:, None]
        def mean(values):
            if self.name == "layer":
                values = values.mean(1, keepdim=True)
            sums = values.new_zeros(self.count, values.size(1)).index_add(0, self.index, values)
            return (sums / count)[self.index]
        out = x - alpha * mean(x)
        return out / (mean(out.square()) + EPS).sqrt() * gamma + beta


def segment_lengths(rows, average):
    """As `wgnorm bench --segments` has them."""
    lengths, state = [], 1
    while rows > 0:
        state = (state * 1103515245 + 12345) % 2**31
        lengths.append(min(1 + (state >> 16) % (2 * average - 1), rows))
        rows -= lengths[-1]
    return lengths


NORMS = {"batch": BatchNorm, "layer": LayerNorm, "rms": RmsNorm, "group": GroupNorm, "spectral": SpectralNorm,
         "switchable": SwitchableNorm}
OVER_SEGMENTS = ("instance", "layer", "graph")


def worst_error(got, expected):
    """Largest error of an output as a fraction of its largest value; NaN where anything is."""
    errors = []
    for one, other in zip(got, expected, strict=True):
        scale = other.abs().max().clamp(min=1e-30)
        errors.append(((one.double() - other).abs().max() / scale).item())
    return math.nan if any(map(math.isnan, errors)) else max(errors)


# ---------------------------------------------------------------- cases

def ops_of(wanted, kernels):
    """The operations of a shape in the order of the report: those of the file, and the step where it has its parts."""
    # Only ATen's own kernels have a backward pass through frozen statistics; what is compiled cannot be differentiated twice.
    native = ("frozen_backward", *DERIVATIVES)
    ops = [op for op in FLOORS if op in wanted and (op not in native or kernels == "native")]
    if {"train_forward", "train_backward"} <= set(wanted):
        ops.insert(ops.index("train_backward") + 1, "train_step")
    return ops


def read_groups(path, kernels):
    """The adapter, and the operations of each (norm, groups, segments, shape, multiplicity, dtype, layout), in order; plain, warm cases of
    norms that are timed here only."""
    try:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        groups, skipped, others = {}, 0, 0
        for case in report["cases"]:
            plain = case.get("activation", "none") == "none" and not any(map(case.get, ("residual", "sum", "in_place")))
            if not plain or case.get("cache", "warm") != "warm":
                skipped += 1
                continue
            norm = case.get("norm", "batch")
            # cuDNN's kernels are of batch norm alone.
            segments = case.get("segments")
            timed = OVER_SEGMENTS if segments else NORMS
            if norm not in timed or case.get("axes") or kernels == "cudnn" and norm != "batch":
                others += 1
                continue
            key = (norm, case.get("groups"), segments, tuple(case["shape"]), case["multiplicity"], case["dtype"], case["layout"])
            if case["dtype"] not in TOLERANCES or case["layout"] not in LAYOUTS:
                raise Refusal(f"{path}: element type {case['dtype']} or layout {case['layout']} is not known here")
            groups.setdefault(key, []).append(case["op"])
        adapter = {field: report["adapter"][field] for field in ("name", "device_type")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(f"cannot read {path}: {type(error).__name__}: {error}") from error
    if skipped:
        print(f"{skipped} cases that are fused, of a sum, in place or cold are left out")
    if others:
        print(f"{others} cases of norms that are not timed with these kernels are left out")
    if not groups:
        raise Refusal(f"{path} has no case that can be timed here")
    return adapter, groups


def measure(layer, op, case, clock, samples, tolerance):
    """Fills in what was measured, or why nothing was."""
    try:
        call = layer.call(op)
        expected = layer.expected_derivatives(op) if op in DERIVATIVES else layer.expected(op)
        error = worst_error(call(), expected)
        case["check_ratio"] = error / tolerance if math.isfinite(error) else None
        case["checked"] = error <= tolerance
        if not case["checked"]:
            case["error"] = f"off by {error:.1e} of the largest value"
        (device, wall), copies = time_beside_copy(clock, call, layer.copy, samples)
    except (Refusal, RuntimeError) as error:
        case["error"] = str(error).splitlines()[0]
        return
    case["device_ns"], case["wall_ns"] = device, wall
    copy_ns = (copies[0] or copies[1])["median"]
    tensor_bytes = layer.x.numel() * layer.x.element_size()
    case["copy_gbps"] = 2 * tensor_bytes / copy_ns
    case["floor_fraction"] = case["floor_bytes"] / (device or wall)["median"] / case["copy_gbps"]


def blank(op, norm, groups, segments, shape, times, dtype, layout):
    """A case that has not run. Fields of `wgnorm bench` that say nothing here are None."""
    tensor_bytes = math.prod(shape) * getattr(torch, dtype).itemsize
    bytes_ = FLOORS[op] * tensor_bytes
    of = "" if norm == "batch" else f"{norm}{groups or ''}."
    return {
        "name": f"{of}{op}.{'x'.join(map(str, shape))}", "op": op, "norm": norm, "groups": groups, "segments": segments,
        "shape": list(shape), "layout": layout, "dtype": dtype,
        "activation": "none", "residual": False, "sum": False, "in_place": False, "cache": "warm", "multiplicity": times,
        "plan": None, "reasons": None, "kernels": None, "sets": 1,
        "floor_bytes": bytes_, "plan_bytes": None, "tensor_bytes": bytes_,
        "checked": False, "error": None, "check_ratio": None,
        "device_ns": None, "wall_ns": None, "naive_ns": None, "speedup": None,
        "separate_ns": None, "separate_speedup": None,
        "copy_gbps": None, "floor_fraction": None, "plan_fraction": None,
    }


def totals(cases):
    """Sums over multiplicity per norm, operation, layout and element type; none where a case has no time."""
    kinds = {}
    for case in cases:
        kinds.setdefault((case["norm"], case["groups"], case["segments"], case["op"], case["layout"], case["dtype"]), []).append(case)
    result = []
    for (norm, groups, segments, op, layout, dtype), group in kinds.items():
        if any(case["wall_ns"] is None for case in group):
            continue
        total = lambda value: sum(case["multiplicity"] * value(case) for case in group)
        wall = total(lambda case: case["wall_ns"]["median"])
        device = None
        if all(case["device_ns"] for case in group):
            device = total(lambda case: case["device_ns"]["median"])
        floor = total(lambda case: case["floor_bytes"] / case["copy_gbps"])
        result.append({
            "op": op, "norm": norm, "groups": groups, "segments": segments, "layout": layout, "dtype": dtype,
            "activation": "none", "residual": False, "sum": False, "in_place": False,
            "cache": "warm", "device_ns": device, "wall_ns": wall, "naive_ns": None, "speedup": None,
            "separate_ns": None, "separate_speedup": None,
            "floor_fraction": floor / (device or wall), "plan_fraction": None,
        })
    return result


def cpu_name():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or "CPU"


def adapter_of(device):
    if device == "cpu":
        name, driver = cpu_name(), f"{torch.get_num_threads()} threads"
        return {"name": name, "backend": "cpu", "driver": driver, "device_type": "Cpu"}
    driver = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    if not torch.version.cuda:
        driver = f"ROCm {torch.version.hip}"
    properties = torch.cuda.get_device_properties(0)
    kind = "IntegratedGpu" if getattr(properties, "is_integrated", False) else "DiscreteGpu"
    return {"name": properties.name, "backend": "cuda", "driver": driver, "device_type": kind}


def table_line(case):
    norm = f"{case['norm']}{case['groups'] or ''}"
    line = f"{str(case['shape']):<22} {norm:<8} {case['op']:<15} {case['layout']:<14} {case['dtype']:<8} "
    times = case["device_ns"] or case["wall_ns"]
    if times:
        line += f"{times['median'] / 1e6:>9.3f} ms {100 * case['floor_fraction']:>5.0f}% of a copy "
    return line + (case["error"] or "")


def run(args):
    ours, kinds = read_groups(args.cases, args.kernels)
    device = args.device
    if device == "auto":
        device = "cpu" if ours["device_type"] == "Cpu" else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise Refusal(f"this PyTorch has no CUDA device, and the cases ran on {ours['name']}; --device cpu times the CPU")
    # PyTorch for AMD calls its devices cuda as well.
    if args.kernels == "cudnn" and (device != "cuda" or not torch.version.cuda or not torch.backends.cudnn.is_available()):
        raise Refusal("cuDNN needs --device cuda, and a PyTorch with cuDNN")
    if args.kernels == "compiled":
        from torch._functorch import config as graphs
        # A graph that is kept may not give its buffers away.
        graphs.donated_buffer = False
    clock = CudaClock() if device == "cuda" else CpuClock()
    with clock.stream():
        return run_on(device, clock, kinds, args)


def run_on(device, clock, kinds, args):
    adapter = adapter_of(device)
    variant = f"{device}, {args.kernels}"
    print(f"PyTorch {torch.__version__} ({variant}) on {adapter['name']}, {adapter['driver']}")
    cases = []
    for (norm, groups, segments, shape, times, dtype, layout), wanted in kinds.items():
        ops = ops_of(wanted, args.kernels)
        reason, layer = None, None
        try:
            if layout == "channels_last" and len(shape) != 4:
                raise Refusal("channels last is timed for four axes only")
            if args.kernels == "compiled":
                # What was compiled for other shapes counts towards the most that one function may be compiled for.
                torch.compiler.reset()
            make = functools.partial(SegmentNorm, norm) if segments else NORMS[norm]
            layer = make(shape, getattr(torch, dtype), layout, device, args.kernels, segments or groups)
        except (Refusal, RuntimeError) as error:
            reason = str(error).splitlines()[0]
        for op in ops:
            case = blank(op, norm, groups, segments, shape, times, dtype, layout)
            if layer is None:
                case["error"] = reason
            else:
                measure(layer, op, case, clock, args.samples, TOLERANCES[dtype])
            print(table_line(case), flush=True)
            cases.append(case)
        # Whoever is ended before the end leaves what was done.
        write(args.json, adapter, variant, cases, complete=False)
    write(args.json, adapter, variant, cases, complete=True)
    return 0 if all(case["checked"] for case in cases) else 1


def write(path, adapter, variant, cases, complete):
    now = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    report = {
        "adapter": adapter, "git": None, "date": now, "complete": complete,
        "peer": {"name": "PyTorch", "version": torch.__version__, "variant": variant},
        "cases": cases, "total": totals(cases),
    }
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=2, allow_nan=False)
            file.write("\n")
    except OSError as error:
        raise Refusal(f"cannot write {path}: {error}") from error


def positive(text):
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", required=True, metavar="FILE", help="what `wgnorm bench --json` wrote")
    parser.add_argument("--json", required=True, metavar="FILE", help="where the results go")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="auto: what the cases ran on, CPU or not")
    parser.add_argument("--kernels", choices=["native", "cudnn", "compiled"], default="native",
                        help="PyTorch's own, cuDNN's (CUDA, batch norm), or what torch.compile makes of torch.nn.functional")
    parser.add_argument("--samples", type=positive, default=12, help="samples of each measurement")
    args = parser.parse_args()
    try:
        with torch.no_grad():
            sys.exit(run(args))
    except Refusal as refusal:
        print(f"pytorch.py: {refusal}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
