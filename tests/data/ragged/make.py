"""Makes the file beside it: norms over segments in float64, by PyTorch Geometric (InstanceNorm, LayerNorm with mode="graph", GraphNorm) with the index of each row, and by torch.nn.functional, segment by segment.

    pip install torch torch_geometric numpy
    python make.py

Every input is a number of f32, so that kernels and reference see the same.
"""

import json
import math
import pathlib

import torch
import torch.nn.functional as F
import torch_geometric
from torch_geometric.nn import GraphNorm, InstanceNorm, LayerNorm

torch.manual_seed(25)
EPS = 2.0**-10


def normal(*shape, shift=0.0):
    return (torch.randn(*shape) + shift).to(torch.float32).to(torch.float64)


def case(norm, lengths, channels, shift=0.0):
    rows = sum(lengths)
    x, dy = normal(rows, channels, shift=shift).requires_grad_(), normal(rows, channels)
    index = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    if norm == "group:2":
        gamma, beta = normal(channels, shift=0.5).requires_grad_(), normal(channels).requires_grad_()
        # PyTorch's groups are over channels and positions of a sample.
        parts = [part.T[None] for part in x.split(lengths) if len(part)]
        y = torch.cat([F.group_norm(part, 2, gamma, beta, EPS)[0].T for part in parts])
        parameters = {"gamma": gamma, "beta": beta}
    else:
        kind = {"instance": InstanceNorm, "layer": LayerNorm, "graph": GraphNorm}[norm]
        more = {"affine": True} if norm == "instance" else {"mode": "graph"} if norm == "layer" else {}
        layer = kind(channels, eps=EPS, **more).double()
        parameters = {"gamma": layer.weight, "beta": layer.bias}
        if norm == "graph":
            parameters["alpha"] = layer.mean_scale
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(normal(channels, shift={"gamma": 0.5, "beta": 0.0, "alpha": 0.5}[name]))
        y = layer(x, index, len(lengths))
    names = {"gamma": "dweight", "beta": "dbias", "alpha": "dalpha"}
    gradients = torch.autograd.grad(y, [x, *parameters.values()], dy)
    flat = lambda value: value.detach().flatten().tolist()
    results = {"y": flat(y), "dx": flat(gradients[0])}
    results.update({names[name]: flat(gradient) for name, gradient in zip(parameters, gradients[1:])})
    assert all(math.isfinite(value) for values in results.values() for value in values)
    line = f"{norm} {rows}x{channels} segments={','.join(map(str, lengths))} eps={EPS} backward"
    inputs = {"x": flat(x), "dy": flat(dy), **{name: flat(value) for name, value in parameters.items()}}
    return {"line": line, "index": index.tolist(), "segments": len(lengths), "inputs": inputs, "results": results}


cases = [
    case(norm, lengths, channels, shift)
    for norm in ("instance", "layer", "graph", "group:2")
    for lengths, channels, shift in [([3, 1, 5], 4, 0.0), ([2, 7], 6, 3.0), ([1, 1, 2], 4, 0.0), ([70], 2, -1.0)]
]
# A graph without nodes.
cases.append(case("graph", [2, 0, 4, 0], 4))
path = pathlib.Path(__file__).parent / "cases.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(
    f'{{"torch": "{torch.__version__}", "torch_geometric": "{torch_geometric.__version__}", "cases": [\n{lines}\n]}}\n'
)
