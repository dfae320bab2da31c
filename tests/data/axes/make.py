"""Makes the file beside it: layer and RMS norm over any axes in float64. Layer norm over axes in ascending order is that of Keras' layer, which sorts them, with JAX's gradients (in Keras 3.15
its layer over PyTorch, and RMSNormalization over both, take no axes but the last); the rest PyTorch's function over x with these axes put last, in the order in which they are named, as WebNN has
them, with PyTorch's gradients.

    pip install torch keras
    KERAS_BACKEND=torch python make.py

Every input is a number of f32, so that kernels and reference see the same.
"""

import json
import math
import pathlib
from unittest import mock

import jax
import keras
import torch
import torch.nn.functional as F

torch.manual_seed(12)
keras.backend.set_floatx("float64")
EPS = 1e-5


def normal(*shape, scale=1.0, shift=0.0):
    return (shift + scale * torch.randn(*shape)).to(torch.float32).to(torch.float64)


def by_keras(_, tensors, axes, dy):
    layer = keras.layers.LayerNormalization(axis=list(axes), epsilon=EPS, dtype="float64")
    layer.build(tuple(tensors["x"].shape))
    assert [tuple(weight.shape) for weight in layer.weights] == [tuple(t.shape) for t in list(tensors.values())[1:]]
    arrays = [jax.numpy.asarray(tensor.detach().numpy()) for tensor in tensors.values()]
    # What it computes with it chooses by its own rules, by which float64 and float32 are float32.
    with mock.patch("keras.src.ops.nn.backend.result_type", lambda *_: "float64"):
        y, pull = jax.vjp(lambda x, *weights: layer.stateless_call(list(weights), [], x)[0], *arrays)
    assert y.dtype == "float64"
    to_torch = lambda array: torch.tensor(array.tolist(), dtype=torch.float64)
    return to_torch(y), [to_torch(gradient) for gradient in pull(jax.numpy.asarray(dy.numpy()))]


def by_torch(norm, tensors, axes, dy):
    x, gamma = tensors["x"], tensors["gamma"]
    last = x.movedim(tuple(axes), tuple(range(-len(axes), 0)))
    of_slice = last.shape[-len(axes) :]
    if norm == "layer":
        y = F.layer_norm(last, of_slice, gamma, tensors["beta"], EPS)
    else:
        y = F.rms_norm(last, of_slice, gamma, EPS)
    y = y.movedim(tuple(range(-len(axes), 0)), tuple(axes))
    return y, torch.autograd.grad(y, list(tensors.values()), dy)


def case(norm, shape, axes):
    lengths = [shape[axis] for axis in axes]
    tensors = {"x": normal(*shape, scale=2.0, shift=0.5), "gamma": normal(*lengths, scale=0.5, shift=1.0)}
    if norm == "layer":
        tensors["beta"] = normal(*lengths)
    for value in tensors.values():
        value.requires_grad_()
    dy = normal(*shape)
    compute, source = (by_keras, "keras") if norm == "layer" and axes == sorted(axes) else (by_torch, "torch")
    y, gradients = compute(norm, tensors, axes, dy)
    assert y.shape == tensors["x"].shape
    flat = lambda value: value.detach().flatten().tolist()
    inputs = {name: flat(value) for name, value in tensors.items()} | {"dy": flat(dy)}
    results = {"y": flat(y)} | {f"d{name}": flat(value) for name, value in zip(tensors, gradients)}
    assert all(math.isfinite(value) for values in results.values() for value in values)
    return {"norm": norm, "source": source, "shape": shape, "axes": axes, "inputs": inputs, "results": results}


cases = [
    case(norm, [2, 3, 4, 5], axes)
    for norm in ("layer", "rms")
    for axes in ([1], [0], [0, 2, 3], [1, 3], [0, 2], [1, 2], [3, 1], [3, 2], [2, 0])
]
path = pathlib.Path(__file__).parent / "cases.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"torch": "{torch.__version__}", "keras": "{keras.__version__}", "cases": [\n{lines}\n]}}\n')
