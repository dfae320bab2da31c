#!/usr/bin/env python3
"""Recompute the conformance fixtures of this directory with PyTorch in float64, to prove that they are PyTorch's.

For every case of manifest.json (FORMAT.md describes the format) this takes the stored or procedural inputs and the
attributes, runs PyTorch on the CPU in float64, backward by autograd, and compares with the `<case>/exp/...` tensors.

Requirements:  pip install torch numpy safetensors ml_dtypes

Usage:
    python recompute.py                  verify all cases; one line per case, then a summary
    python recompute.py --filter TEXT    only the cases whose name contains TEXT
    python recompute.py --write          replace the exp/ tensors by the recomputed values, and the bytes and sha256 of
                                         their groups in manifest.json; every other tensor stays as it is
Exit status: 0 all match (or written), 1 something differs or cannot be recomputed (--write then writes nothing),
2 usage error or missing package.

An element matches when |recomputed - stored| <= 1e-7 * atol + 1e-13 * |stored|, where atol is the stored gate tolerance
for f32 arithmetic: a ten-millionth of the gate, but room for PyTorch builds and CPUs that sum in another order.
Non-finite elements match as FORMAT.md says under "Non-finite". Also checked: size and sha256 of the group files, dtype
and shape of the stored tensors, first_values, last_value and f64_sum of procedural inputs, and that dy is 0 wherever
abs(pre-activation) < relu_margin.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

try:
    import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which safetensors needs)
    import numpy as np
    import torch
    import torch.nn.functional as F
    from safetensors.numpy import load_file, save
except ImportError as error:
    print(f"{error}; need: pip install torch numpy safetensors ml_dtypes", file=sys.stderr)
    sys.exit(2)

HERE = Path(__file__).resolve().parent
ATOL_FRACTION = 1e-7
RELATIVE = 1e-13
SUM_RELATIVE = 1e-14


def require(condition, message):
    """Raise ValueError(message), which fails the case, unless the condition holds."""
    if not condition:
        raise ValueError(message)


# ---------------------------------------------------------------- inputs

def uniform(seed, count):
    """The splitmix64 stream of FORMAT.md as float32 values in [-1, 1)."""
    z = np.arange(1, count + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0).astype(np.float32)


def procedural(spec, tensors):
    """Generate a procedural input: hash, scale and shift in float32, storage rounding, zeros."""
    recipe, shape = spec["procedural"], spec["shape"]
    values = uniform(int(recipe["seed"]), int(np.prod(shape))).reshape(shape)
    along_axis = [-1 if axis == recipe["axis"] else 1 for axis in range(len(shape))]
    if recipe["scale"] is not None:
        values = values * tensors[recipe["scale"]].reshape(along_axis)
    if recipe["shift"] is not None:
        values = values + tensors[recipe["shift"]].reshape(along_axis)
    values = values.astype(np.dtype(spec["dtype"]))
    if recipe["zero_index"] is not None:
        values.reshape(-1)[tensors[recipe["zero_index"]]] = 0
    return values


def check_procedural(name, spec, values):
    """Compare a generated input with the check values of the manifest."""
    flat = values.reshape(-1).astype(np.float64)
    require(flat[: len(spec["first_values"])].tolist() == spec["first_values"], f"{name}: first_values differ")
    require(flat[-1] == spec["last_value"], f"{name}: last_value differs")
    slack = SUM_RELATIVE * np.abs(flat).sum()
    require(abs(flat.sum() - spec["f64_sum"]) <= slack, f"{name}: f64_sum differs")


def load_input(name, spec, tensors):
    """One input as a float64 torch tensor, checked against the manifest."""
    values = procedural(spec, tensors) if "procedural" in spec else tensors[spec["key"]]
    found, expected = (str(values.dtype), list(values.shape)), (spec["dtype"], spec["shape"])
    require(found == expected, f"{name}: {found}, not {expected}")
    if "procedural" in spec:
        check_procedural(name, spec, values)
    return torch.from_numpy(values.astype(np.float64))


def leaves(inputs, names):
    """Those of the named inputs which the case has, as leaves of an autograd graph."""
    return {name: inputs[name].clone().requires_grad_() for name in names if name in inputs}


def running_statistics(inputs):
    """[running_mean, running_var] as buffers to update; None where the case has none."""
    return [inputs[name].clone() if name in inputs else None for name in ("running_mean", "running_var")]


def moments(x, axes):
    """Mean and population variance of x over the axes."""
    return x.mean(axes), x.var(axes, correction=0)


def non_channel_axes(x):
    """All axes of [N, C, ...] but C."""
    return [0, *range(2, x.dim())]


# The normalisations. Each takes (attrs, p, running): p holds the operands x, weight and bias (the last two may be
# absent), running is [running_mean, running_var], updated in place. Each returns norm(x) and its statistics. The
# native_* functions are what torch.nn.functional calls; they also return the mean and invstd which PyTorch saves.

def batch_norm(attrs, p, running):
    """Batch normalisation with the statistics of x, or with the given ones (frozen)."""
    y, mean, invstd = torch.native_batch_norm(
        p["x"], p.get("weight"), p.get("bias"), *running, attrs["training"], attrs["batch_weight"] or 0.0, attrs["eps"])
    if not attrs["training"]:
        return y, {}
    _, var = moments(p["x"], non_channel_axes(p["x"]))
    return y, dict(running_mean=running[0], running_var=running[1], save_mean=mean, save_invstd=invstd, save_var=var)


def instance_norm(attrs, p, running):
    """Instance normalisation with the statistics of x, or with the given ones; save_* are [N, C]."""
    y = F.instance_norm(
        p["x"], *running, p.get("weight"), p.get("bias"), attrs["training"], attrs["batch_weight"] or 0.0, attrs["eps"])
    if not attrs["training"]:
        return y, {}
    var, mean = torch.var_mean(p["x"].flatten(2), dim=2, correction=0)
    invstd = torch.rsqrt(var + attrs["eps"])
    return y, dict(running_mean=running[0], running_var=running[1], save_mean=mean, save_invstd=invstd)


def group_norm(attrs, p, running):
    """Group normalisation; save_* are [N, G]."""
    n, c = p["x"].shape[:2]
    y, mean, invstd = torch.native_group_norm(
        p["x"], p.get("weight"), p.get("bias"), n, c, p["x"][0, 0].numel(), attrs["num_groups"], attrs["eps"])
    return y, dict(save_mean=mean, save_invstd=invstd)


def layer_norm(attrs, p, running):
    """Layer normalisation over the trailing axes; save_* have one value per row."""
    shape = attrs["normalized_shape"]
    y, mean, invstd = torch.native_layer_norm(p["x"], shape, p.get("weight"), p.get("bias"), attrs["eps"])
    rows = p["x"].shape[: -len(shape)]
    return y, dict(save_mean=mean.reshape(rows), save_invstd=invstd.reshape(rows))


def rms_norm(attrs, p, running):
    """Root-mean-square normalisation over the trailing axes; save_invstd = 1/sqrt(mean(x^2) + eps), one per row."""
    shape = attrs["normalized_shape"]
    y = F.rms_norm(p["x"], shape, p.get("weight"), attrs["eps"])
    mean_square = p["x"].square().mean(dim=list(range(-len(shape), 0)))
    return y, dict(save_invstd=torch.rsqrt(mean_square + attrs["eps"]))


def mvn(attrs, p, running):
    """ONNX MeanVarianceNormalization, (x - mean) / (std + 1e-9), which PyTorch does not have as one function."""
    var, mean = torch.var_mean(p["x"], dim=attrs["axes"], correction=0, keepdim=True)
    return (p["x"] - mean) / (var.sqrt() + 1e-9), {}


NORMS = {
    "batch_norm_train": batch_norm, "batch_norm_eval": batch_norm, "group_norm": group_norm, "layer_norm": layer_norm,
    "instance_norm": instance_norm, "instance_norm_eval": instance_norm, "rms_norm": rms_norm, "mvn": mvn,
}


def run_layer(case, inputs):
    """One layer, forward and backward: y = act(norm(x) + residual)."""
    attrs = case["attrs"]
    p = leaves(inputs, ("x", "weight", "bias", "residual"))
    pre, results = NORMS[case["op"]](attrs, p, running_statistics(inputs))
    if attrs["residual"]:
        pre = pre + p["residual"]
    results["y"] = F.relu(pre) if attrs["activation"] == "relu" else pre
    if "backward" in case["passes"]:
        dy, margin = inputs["dy"], attrs["relu_margin"] or 0.0
        require((dy[pre.abs() < margin] == 0).all(), "dy is not 0 everywhere within relu_margin")
        gradients = torch.autograd.grad(results["y"], list(p.values()), dy)
        results |= {f"d{name}": gradient for name, gradient in zip(p, gradients)}
    return results


def run_sequence(case, inputs):
    """Training steps of a torch.nn module (momentum None: cumulative average), then inference on x_eval."""
    attrs, weight = case["attrs"], inputs["weight"]
    module = {4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}.get(len(case["shape"]), torch.nn.BatchNorm1d)
    layer = module(len(weight), attrs["eps"], attrs["batch_weight"], dtype=torch.float64)
    layer.load_state_dict({"weight": weight, "bias": inputs["bias"]}, strict=False)
    layer.running_mean.fill_(attrs["initial_running_mean"])
    layer.running_var.fill_(attrs["initial_running_var"])
    results = {}
    for step in range(attrs["steps"]):
        layer(inputs[f"x_{step}"])
        results[f"running_mean_{step}"] = layer.running_mean.clone()
        results[f"running_var_{step}"] = layer.running_var.clone()
    results["y_eval"] = layer.eval()(inputs["x_eval"])
    return results


def run_sync(case, inputs):
    """Batch norm of the concatenated shards; parameter gradients and statistics of each shard too."""
    sizes = case["attrs"]["shard_sizes"]
    x, dy = (torch.cat([inputs[f"{name}_{i}"] for i in range(len(sizes))]) for name in ("x", "dy"))
    p = leaves(inputs | {"x": x}, ("x", "weight", "bias"))
    y, results = batch_norm(case["attrs"], p, running_statistics(inputs))
    dx, dweight, dbias = torch.autograd.grad(y, [p["x"], p["weight"], p["bias"]], dy, retain_graph=True)
    axes = non_channel_axes(x)
    x_minus_mean = x - results["save_mean"].reshape([1, -1] + [1] * (x.dim() - 2))
    results |= {"dweight": dweight, "dbias": dbias, "sum_dy": dy.sum(axes), "sum_dy_xmu": (dy * x_minus_mean).sum(axes)}
    for i, (y_i, dx_i, size) in enumerate(zip(y.split(sizes), dx.split(sizes), sizes)):
        dweight_i, dbias_i = torch.autograd.grad(y_i, [p["weight"], p["bias"]], inputs[f"dy_{i}"], retain_graph=True)
        results |= {f"y_{i}": y_i, f"dx_{i}": dx_i, f"dweight_local_{i}": dweight_i, f"dbias_local_{i}": dbias_i}
        if size > 0:
            results[f"local_mean_{i}"], results[f"local_var_{i}"] = moments(inputs[f"x_{i}"], axes)
    return results


def sampled(value, case, spec, tensors):
    """The elements of an output (or of a tolerance, which broadcasts to it) that the set stores."""
    value = np.broadcast_to(value, spec["shape"])
    return value.reshape(-1)[tensors[case["inputs"]["sample_index"]["key"]]] if spec["sampled"] else value


def recompute(case, tensors):
    """The expected outputs of a case as float64 numpy arrays."""
    attrs = case["attrs"]
    require(attrs["layout"] == "channels_first", "PyTorch's layout is channels_first")
    require(attrs["running_var_correction"] in (None, 1), "PyTorch's running variance is the unbiased one")
    inputs = {name: load_input(name, spec, tensors) for name, spec in case["inputs"].items() if name != "sample_index"}
    run = {"batch_norm_sequence": run_sequence, "batch_norm_sync": run_sync}.get(case["op"], run_layer)
    results = run(case, inputs)
    outputs = {}
    for name, spec in case["expected"].items():
        require(results.get(name) is not None, f"{name}: not an output of {case['op']}")
        value = results[name].detach().numpy()
        require(list(value.shape) == spec["shape"], f"{name}: shape {list(value.shape)}, not {spec['shape']}")
        outputs[name] = np.ascontiguousarray(sampled(value, case, spec, tensors))
    return outputs


# ---------------------------------------------------------------- comparison

def nonfinite_match(name, got, expected):
    """Elementwise: is got what FORMAT.md allows where expected is NaN or Inf?"""
    nan_only = np.isnan(expected) & name.startswith(("y", "dx", "dresidual"))
    return np.where(nan_only, np.isnan(got), ~np.isfinite(got))


def deviation(name, got, expected, atol):
    """The worst |got - expected|, in units of the limit and in units of atol (0/0 is 0)."""
    finite = np.isfinite(expected)
    if not np.where(finite, np.isfinite(got), nonfinite_match(name, got, expected)).all():
        return np.inf, np.inf
    with np.errstate(all="ignore"):
        difference = np.where(finite, np.abs(got - expected), 0)
        atol = np.where(np.isfinite(atol), atol, 0).astype(np.float64)
        limit = ATOL_FRACTION * atol + RELATIVE * np.abs(expected)
        limit_ratio, atol_ratio = (np.where(difference == 0, 0, difference / unit) for unit in (limit, atol))
    return float(limit_ratio.max(initial=0)), float(atol_ratio.max(initial=0))


def compare(case, outputs, tensors):
    """The worst deviation of a case: in units of the limit, in units of atol, and the name of the output."""
    worst = (0.0, 0.0, "")
    for name, spec in case["expected"].items():
        expected = tensors[spec["key"]]
        require(expected.dtype == np.float64, f"{name}: stored as {expected.dtype}")
        require(expected.shape == outputs[name].shape, f"{name}: stored with shape {list(expected.shape)}")
        atol = sampled(tensors[spec["atol"]], case, spec, tensors)
        worst = max(worst, (*deviation(name, outputs[name], expected, atol), name))
    return worst


# ---------------------------------------------------------------- commands

def file_errors(manifest):
    """A message for each group file whose size or hash is not the manifest's."""
    for group in manifest["groups"].values():
        data = (HERE / group["file"]).read_bytes()
        if len(data) != group["bytes"] or hashlib.sha256(data).hexdigest() != group["sha256"]:
            yield f"{group['file']}: size or sha256 is not the manifest's"


def process(case, tensors, write):
    """Recompute one case, compare (with write: put the outputs into tensors), print its line; (passed, deviation)."""
    try:
        outputs = recompute(case, tensors)
        worst = compare(case, outputs, tensors)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        print(f"FAIL  {case['name']}: {type(error).__name__}: {error}")
        return False, (np.inf, np.inf)
    if write:
        tensors |= {case["expected"][name]["key"]: value for name, value in outputs.items()}
    verdict = "ok   " if worst[0] <= 1 else "NEW  " if write else "FAIL "
    detail = f"{worst[2]} off by {worst[0]:.1e} of the limit, {worst[1]:.1e} of atol" if worst[0] else "identical"
    print(f"{verdict} {case['name']}: {len(outputs)} tensors, {detail}")
    return worst[0] <= 1 or write, worst[:2]


def write_back(manifest, files):
    """Write the group files, and the manifest with their sizes and hashes."""
    for name, group in manifest["groups"].items():
        if group["file"] in files:
            data = save(files[group["file"]], metadata={"group": name})
            (HERE / group["file"]).write_bytes(data)
            group |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (HERE / "manifest.json").write_bytes(json.dumps(manifest, separators=(",", ":")).encode())


def main():
    """Parse the command line, process the cases and print the summary; returns the exit status."""
    parser = argparse.ArgumentParser(description="Recompute the conformance fixtures with PyTorch in float64.")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only the cases whose name contains TEXT")
    parser.add_argument("--write", action="store_true", help="replace the stored expected values")
    options = parser.parse_args()
    torch.set_num_threads(2)  # fixes the order of summation; with 2 nearly all stored values come out bit for bit
    manifest = json.loads((HERE / "manifest.json").read_bytes())
    cases = [case for case in manifest["cases"] if options.filter in case["name"]]
    if not cases:
        parser.error(f"no case name contains {options.filter!r}")
    bad_files = [] if options.write else list(file_errors(manifest))
    for message in bad_files:
        print(f"FAIL  {message}")
    files = {name: load_file(HERE / name) for name in sorted({case["file"] for case in cases})}
    results = [process(case, files[case["file"]], options.write) for case in cases]
    failed = sum(not passed for passed, _ in results)
    if options.write and not failed:
        write_back(manifest, files)
    worst = [max(ratios[i] for _, ratios in results) for i in (0, 1)]
    print(f"{len(cases)} cases, {sum(len(case['expected']) for case in cases)} tensors, torch {torch.__version__}: "
          f"{len(cases) - failed} {'recomputed' if options.write else 'match'}, {failed} failed, {len(bad_files)} bad "
          f"files; worst deviation {worst[0]:.1e} of the limit, {worst[1]:.1e} of atol")
    return 1 if failed or bad_files else 0


if __name__ == "__main__":
    sys.exit(main())
