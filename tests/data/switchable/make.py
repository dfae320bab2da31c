"""Makes the file beside it: switchable norm in float64, by the authors' program (switchablenorms/Switchable-Normalization, SwitchNorm2d, rewritten here for any number of spatial axes), with the variances of instances as
it has them, unbiased, and as the paper has them, biased; in training with a moving average, and in inference.

    pip install torch numpy
    python make.py

Every input is a number of f32, so that kernels and reference see the same.
"""

import json
import math
import pathlib

import torch

torch.manual_seed(27)
EPS = 2.0**-10


def normal(*shape, shift=0.0):
    return (torch.randn(*shape) + shift).to(torch.float32).to(torch.float64)


def switch_norm(x, gamma, beta, mean_weight, var_weight, running, training, unbiased):
    """As the authors have it, and the moments of the batch."""
    n, c = x.shape[:2]
    flat = x.reshape(n, c, -1)
    mean_in = flat.mean(-1, keepdim=True)
    var_in = flat.var(-1, keepdim=True, unbiased=unbiased)
    mean_ln = mean_in.mean(1, keepdim=True)
    temp = var_in + mean_in**2
    var_ln = temp.mean(1, keepdim=True) - mean_ln**2
    if training:
        mean_bn = mean_in.mean(0, keepdim=True)
        var_bn = temp.mean(0, keepdim=True) - mean_bn**2
    else:
        mean_bn, var_bn = (values.view(1, c, 1) for values in running)
    softmax = torch.nn.Softmax(0)
    mean_weight, var_weight = softmax(mean_weight), softmax(var_weight)
    mean = mean_weight[0] * mean_in + mean_weight[1] * mean_ln + mean_weight[2] * mean_bn
    var = var_weight[0] * var_in + var_weight[1] * var_ln + var_weight[2] * var_bn
    y = (flat - mean) / (var + EPS).sqrt()
    y = (y * gamma.view(1, c, 1) + beta.view(1, c, 1)).reshape(x.shape)
    return y, mean_bn.detach().flatten(), var_bn.detach().flatten()


def case(shape, unbiased, shift=0.0):
    channels = shape[1]
    x, dy = normal(*shape, shift=shift).requires_grad_(), normal(*shape)
    parameters = [normal(channels, shift=0.5), normal(channels), normal(3), normal(3)]
    parameters = [parameter.requires_grad_() for parameter in parameters]
    running = [normal(channels), normal(channels).abs()]
    y, mean_bn, var_bn = switch_norm(x, *parameters, running, True, unbiased)
    gradients = torch.autograd.grad(y, [x, *parameters], dy)
    # self.running_mean.mul_(self.momentum).add_((1 - self.momentum) * mean_bn), with a momentum of 0.9.
    after = [0.9 * old + (1 - 0.9) * new for old, new in zip(running, [mean_bn, var_bn])]
    frozen, _, _ = switch_norm(x, *parameters, running, False, unbiased)
    flat = lambda value: value.detach().flatten().tolist()
    inputs = dict(zip(["gamma", "beta", "alpha", "shift"], map(flat, parameters)))
    inputs |= {"x": flat(x), "dy": flat(dy), "running_mean": flat(running[0]), "running_var": flat(running[1])}
    results = dict(zip(["dx", "dweight", "dbias", "dalpha", "dshift"], map(flat, gradients)))
    results |= {"y": flat(y), "running_mean": flat(after[0]), "running_var": flat(after[1]), "inference": flat(frozen)}
    assert all(math.isfinite(value) for values in results.values() for value in values)
    word = "switchable:unbiased" if unbiased else "switchable"
    line = f"{word} {'x'.join(map(str, shape))} eps={EPS} old=0.9 backward"
    return {"line": line, "inputs": inputs, "results": results}


cases = [
    case(shape, unbiased, shift)
    for unbiased in (True, False)
    for shape, shift in [([2, 3, 4, 5], 0.0), ([3, 4, 6], 2.0), ([1, 5, 3], 0.0), ([4, 1, 2, 2], -1.0)]
]
cases.append(case([5, 4], False))
path = pathlib.Path(__file__).parent / "cases.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"torch": "{torch.__version__}", "cases": [\n{lines}\n]}}\n')
