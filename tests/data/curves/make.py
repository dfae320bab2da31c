"""Makes the file beside it: Dynamic Tanh and Derf in float64, as PyTorch computes them and their gradients.

    pip install torch
    python make.py

Every input is a number of f32, so that kernels and reference see the same.
"""

import json
import pathlib

import torch

torch.manual_seed(5)
torch.set_default_dtype(torch.float64)


def normal(*shape, scale=1.0):
    return (scale * torch.randn(*shape)).to(torch.float32).to(torch.float64)


def case(curve, activation, shape):
    channels = shape[1]
    per_channel = (1, channels) + (1,) * (len(shape) - 2)
    alpha, shift = (0.75, 0.0) if curve == "tanh" else (0.625, -0.25)
    tensors = {
        "x": normal(*shape, scale=2.0),
        "gamma": 1 + normal(channels, scale=0.5),
        "beta": normal(channels),
        "residual": normal(*shape),
        "alpha": torch.tensor([alpha]),
        "shift": torch.tensor([shift]),
    }
    # Tiny, saturated, and in between.
    tensors["x"].view(-1)[:5] = torch.tensor([0.0, 2.0**-40, -40.0, 3.0, -1.0])
    tensors = {name: value.to(torch.float32).to(torch.float64) for name, value in tensors.items()}
    for value in tensors.values():
        value.requires_grad_()
    dy = normal(*shape)
    f = {"tanh": torch.tanh, "erf": torch.erf}[curve]
    gamma, beta = (tensors[name].view(per_channel) for name in ("gamma", "beta"))
    z = gamma * f(tensors["alpha"] * tensors["x"] + tensors["shift"]) + beta
    y = z if activation == "none" else torch.nn.functional.gelu(z + tensors["residual"])
    y.backward(dy)
    flat = lambda value: value.detach().flatten().tolist()
    inputs = {name: flat(value) for name, value in tensors.items()} | {"dy": flat(dy)}
    gradients = {f"d{name}": flat(value.grad) for name, value in tensors.items() if value.grad is not None}
    results = {"y": flat(y)} | gradients
    return {"curve": curve, "activation": activation, "shape": shape, "inputs": inputs, "results": results}


cases = [
    case(curve, activation, shape)
    for curve in ("tanh", "erf")
    for activation in ("none", "gelu")
    for shape in ([5, 3], [2, 3, 5])
]
path = pathlib.Path(__file__).parent / "cases.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"torch": "{torch.__version__}", "cases": [\n{lines}\n]}}\n')
