"""Makes the file beside it: spectral norm in float64, by PyTorch's hook (torch.nn.utils.spectral_norm) and by its parametrization, with the names that each has in a state_dict.

    pip install torch
    python make.py

Every input is a number of f32, so that kernels and reference see the same.
"""

import json
import math
import pathlib
import warnings

import torch
import torch.nn.functional as F

warnings.simplefilter("ignore")
torch.manual_seed(26)


def normal(*shape):
    return torch.randn(*shape).to(torch.float32).to(torch.float64)


def unit(size):
    return F.normalize(torch.randn(size), dim=0).to(torch.float32).to(torch.float64)


class Layer(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)


def case(scheme, shape, axis):
    weight, dy = normal(*shape), normal(*shape)
    u, v = unit(shape[axis]), unit(weight.numel() // shape[axis])
    layer = Layer(weight.clone())
    if scheme == "hook":
        layer = torch.nn.utils.spectral_norm(layer, dim=axis)
        names = ["weight_orig", "weight_u", "weight_v"]
    else:
        layer = torch.nn.utils.parametrizations.spectral_norm(layer, dim=axis)
        names = ["parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v"]
    # As files have it, whatever the order.
    assert set(layer.state_dict()) == set(names)
    layer.load_state_dict(dict(zip(names, [weight, u, v])))
    layer.train()
    if scheme == "hook":
        hook = next(iter(layer._forward_pre_hooks.values()))
        y = hook.compute_weight(layer, do_power_iteration=True)
    else:
        y = layer.weight
    original = dict(layer.named_parameters())[names[0]]
    (dw,) = torch.autograd.grad(y, original, dy)
    state = layer.state_dict()
    flat = lambda value: value.detach().flatten().tolist()
    results = {"y": flat(y), "dx": flat(dw), "u": flat(state[names[1]]), "v": flat(state[names[2]])}
    assert all(math.isfinite(value) for values in results.values() for value in values)
    word = {"hook": "spectral", "parametrization": "spectral_u"}[scheme]
    line = f"{word}{f':{axis}' if axis else ''} {'x'.join(map(str, shape))} backward"
    inputs = {"x": flat(weight), "dy": flat(dy), "u": flat(u), "v": flat(v)}
    return {"line": line, "scheme": scheme, "names": names, "inputs": inputs, "results": results}


cases = [
    case(scheme, shape, axis)
    for scheme in ("hook", "parametrization")
    for shape, axis in [([3, 4], 0), ([5, 7], 1), ([4, 3, 2], 0), ([3, 4, 2, 2], 1), ([2, 3, 5], 2)]
]
path = pathlib.Path(__file__).parent / "cases.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"torch": "{torch.__version__}", "cases": [\n{lines}\n]}}\n')
