"""Makes the file beside it: forward mode and gradients of gradients in float64, by PyTorch's own (torch.func.jvp; torch.autograd.grad of the gradients of a graph that is kept).

    pip install torch
    python make.py

Every input is a number of f32, so that kernels and reference see the same.
"""

import json
import math
import pathlib

import torch
import torch.nn.functional as F

torch.manual_seed(25)
EPS = 1e-5
ACTIVATIONS = {
    "none": lambda z: z,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu=0.25": lambda z: F.leaky_relu(z, 0.25),
}


def normal(*shape, scale=1.0, shift=0.0):
    return (shift + scale * torch.randn(*shape)).to(torch.float32).to(torch.float64)


def norm_of(name, shape, running):
    kind, _, number = name.partition(":")
    if kind == "batch":
        return lambda x, gamma, beta: F.batch_norm(x, None, None, gamma, beta, True, 0.0, EPS)
    if kind == "frozen":
        return lambda x, gamma, beta: F.batch_norm(x, *running, gamma, beta, False, 0.0, EPS)
    if kind == "layer":
        return lambda x, gamma, beta: F.layer_norm(x, shape[-int(number or 1) :], gamma, beta, EPS)
    if kind == "rms":
        return lambda x, gamma, beta: F.rms_norm(x, shape[-int(number or 1) :], gamma, EPS)
    if kind == "group":
        return lambda x, gamma, beta: F.group_norm(x, int(number), gamma, beta, EPS)
    return lambda x, gamma, beta: F.instance_norm(x, None, None, gamma, beta, True, 0.0, EPS)


def case(name, shape, activation):
    kind, _, number = name.partition(":")
    of = shape[-int(number or 1) :] if kind in ("layer", "rms") else shape[1:2]
    running = (normal(*of), normal(*of, scale=0.1, shift=1.0).abs()) if kind == "frozen" else None
    parameters = {"gamma": normal(*of, scale=0.5, shift=1.0)}
    if kind != "rms":
        parameters["beta"] = normal(*of)
    primals = {"x": normal(*shape, scale=2.0, shift=0.5)} | parameters
    tangents = {key: normal(*value.shape) for key, value in primals.items()}
    dy = normal(*shape).requires_grad_()
    norm, act = norm_of(name, shape, running), ACTIVATIONS[activation]
    forward = lambda x, gamma, beta=None: act(norm(x, gamma, beta))

    y, y_tangent = torch.func.jvp(forward, tuple(primals.values()), tuple(tangents.values()))
    leaves = [value.clone().requires_grad_() for value in primals.values()]
    gradients = torch.autograd.grad(forward(*leaves), leaves, dy, create_graph=True)
    scalar = sum((tangent * gradient).sum() for tangent, gradient in zip(tangents.values(), gradients))
    second = torch.autograd.grad(scalar, [dy, *leaves], allow_unused=True)
    second = [torch.zeros_like(of) if value is None else value for of, value in zip([dy, *leaves], second)]

    flat = lambda value: value.detach().flatten().tolist()
    inputs = {key: flat(value) for key, value in primals.items()} | {"dy": flat(dy)}
    inputs |= {f"{key}_tangent": flat(value) for key, value in tangents.items()}
    if running:
        inputs |= {"running_mean": flat(running[0]), "running_var": flat(running[1])}
    results = {"y_tangent": flat(y_tangent)}
    results |= {f"d{key}": flat(value) for key, value in zip(["dy", *primals], second)}
    assert all(math.isfinite(value) for values in results.values() for value in values)
    line = f"{name} {'x'.join(map(str, shape))}" + ("" if activation == "none" else f" {activation}") + " second"
    return {"line": line, "inputs": inputs, "results": results}


cases = [
    case(name, shape, activation)
    for name, shape in [
        ("batch", [4, 3, 5]),
        ("frozen", [4, 3, 5]),
        ("layer", [5, 7]),
        ("layer:2", [3, 4, 5]),
        ("rms", [5, 7]),
        ("group:2", [2, 4, 3, 2]),
        ("instance", [2, 3, 5]),
    ]
    for activation in ACTIVATIONS
]
path = pathlib.Path(__file__).parent / "cases.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"torch": "{torch.__version__}", "cases": [\n{lines}\n]}}\n')
