"""Makes the file beside it: gated norms and norms of groups of a row in float64. RMS norm is flash-linear-attention's own reference
(`fla.modules.layernorm_gated.rms_norm_ref`, which is Mamba-2's), layer norm PyTorch's; gradients are PyTorch's.

    pip install torch einops transformers
    pip install --no-deps flash-linear-attention==0.6.0 fla-core==0.6.0
    python make.py

Every input is a number of f32, so that kernels and reference see the same.
"""

import json
import pathlib
from unittest import mock

import fla
import torch
import torch.nn.functional as F
from fla.modules.layernorm_gated import rms_norm_ref

torch.manual_seed(11)
EPS = 1e-5


def normal(*shape, scale=1.0, shift=0.0):
    return (shift + scale * torch.randn(*shape)).to(torch.float32).to(torch.float64)


def layer_norm(x, gamma, beta, gate, groups, last):
    if gate is not None and not last:
        x = x * torch.sigmoid(gate)
    grouped = x.unflatten(-1, (groups, x.shape[-1] // groups))
    y = F.layer_norm(grouped, grouped.shape[-1:], eps=EPS).flatten(-2) * gamma + beta
    return y * torch.sigmoid(gate) if gate is not None and last else y


def rms_norm(x, gamma, gate, groups, last):
    # It casts the weight to float32, and so its gradient.
    with mock.patch.object(torch.Tensor, "float", lambda self: self):
        return rms_norm_ref(
            x, gamma, None, z=gate, eps=EPS, group_size=x.shape[-1] // groups, norm_before_gate=last, upcast=False
        )


def case(norm, gate, groups, rows=6, width=24):
    tensors = {"x": normal(rows, width, scale=2.0, shift=0.5), "gamma": normal(width, scale=0.5, shift=1.0)}
    if norm == "layer":
        tensors["beta"] = normal(width)
    if gate is not None:
        tensors["gate"] = normal(rows, width, scale=2.0)
    for value in tensors.values():
        value.requires_grad_()
    dy, last = normal(rows, width), gate == "last"
    if norm == "layer":
        y = layer_norm(tensors["x"], tensors["gamma"], tensors["beta"], tensors.get("gate"), groups, last)
    else:
        y = rms_norm(tensors["x"], tensors["gamma"], tensors.get("gate"), groups, last)
    assert y.dtype == torch.float64
    y.backward(dy)
    flat = lambda value: value.detach().flatten().tolist()
    inputs = {name: flat(value) for name, value in tensors.items()} | {"dy": flat(dy)}
    results = {"y": flat(y)} | {f"d{name}": flat(value.grad) for name, value in tensors.items()}
    return {"norm": norm, "gate": gate, "groups": groups, "shape": [rows, width], "inputs": inputs, "results": results}


cases = [
    case(norm, gate, groups) for norm in ("rms", "layer") for gate in ("last", "first", None) for groups in (1, 3)
]
path = pathlib.Path(__file__).parent / "cases.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"torch": "{torch.__version__}", "fla": "{fla.__version__}", "cases": [\n{lines}\n]}}\n')
