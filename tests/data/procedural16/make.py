"""Makes the fixtures beside it: 16-bit inputs that are generated instead of stored (../conformance/FORMAT.md), in both layouts, with
expectations in float64. Needs numpy."""

import json
import struct

import numpy as np

UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
U = 2.0**-24
EPS = 1e-5
MASK = (1 << 64) - 1


def rounded(values, dtype):
    values = values.astype(np.float32)
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


def uniform(seed, count):
    out = []
    for i in range(count):
        z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        out.append((z >> 40) * 2.0**-23 - 1.0)
    return np.array(out)


class File:
    def __init__(self):
        self.tensors = []

    def add(self, key, values, dtype):
        values = np.ascontiguousarray(values, {"F32": "<f4", "F64": "<f8"}[dtype])
        self.tensors.append((key, values, dtype))
        return key

    def write(self, path):
        header, data = {}, b""
        for key, values, dtype in self.tensors:
            raw = values.tobytes()
            header[key] = {"dtype": dtype, "shape": values.shape, "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + data)


def case(file, name, op, shape, dtype, layout, attrs, axes, channel_axis):
    """x of mean 3 and standard deviation about 1 along the channel axis; statistics over `axes`."""
    channels = shape[channel_axis]
    scale = np.where(np.arange(channels) % 2 == 0, 2.0, 1.0)
    shift = 3.0 + 0.25 * np.arange(channels)
    along = [1] * len(shape)
    along[channel_axis] = channels
    count = int(np.prod(shape))
    x = uniform(11, count).reshape(shape) * scale.reshape(along) + shift.reshape(along)
    x = rounded(x, dtype)
    dy = rounded(uniform(12, count).reshape(shape), dtype)
    weight = (1.0 + 0.125 * np.arange(channels)).astype(np.float32)
    bias = (0.5 - 0.125 * np.arange(channels)).astype(np.float32)

    xd, dyd, w, b = (v.astype(np.float64) for v in (x, dy, weight.reshape(along), bias.reshape(along)))
    mean = xd.mean(axes, keepdims=True)
    inv_std = 1.0 / np.sqrt(xd.var(axes, keepdims=True) + EPS)
    xhat = (xd - mean) * inv_std
    g = dyd * w
    dx = inv_std * (g - g.mean(axes, keepdims=True) - xhat * (g * xhat).mean(axes, keepdims=True))
    others = tuple(axis for axis in range(len(shape)) if axis != channel_axis)
    outputs = {
        "y": (xhat * w + b, dtype, 64 * U),
        "dx": (dx, dtype, 64 * U),
        "dweight": ((dyd * xhat).sum(others), "float32", 1024 * U),
        "dbias": (dyd.sum(others), "float32", 1024 * U),
    }

    key = lambda kind, what: f"{name}/{kind}/{what}"
    inputs = {
        "weight": {"key": file.add(key("in", "weight"), weight, "F32"), "dtype": "float32", "shape": [channels]},
        "bias": {"key": file.add(key("in", "bias"), bias, "F32"), "dtype": "float32", "shape": [channels]},
    }
    tables = {
        "scale": file.add(key("in", "x_scale"), scale, "F64"),
        "shift": file.add(key("in", "x_shift"), shift, "F64"),
    }
    nothing = {"scale": None, "shift": None, "axis": None, "zero_index": None}
    for what, values, procedural in [
        ("x", x, {**nothing, **tables, "seed": "11", "axis": channel_axis}),
        ("dy", dy, {**nothing, "seed": "12"}),
    ]:
        flat = values.reshape(-1).tolist()
        inputs[what] = {
            "procedural": procedural,
            "dtype": dtype,
            "shape": shape,
            "first_values": flat[:4],
            "last_value": flat[-1],
        }
    expected = {}
    for what, (values, stored, atol) in outputs.items():
        tolerance = {
            kind: file.add(key(kind, what), np.full([1] * values.ndim, value), "F32")
            for kind, value in [("atol", atol), ("strict", atol / 4), ("terr", 0.0)]
        }
        expected[what] = {
            "key": file.add(key("exp", what), values, "F64"),
            "shape": list(values.shape),
            "sampled": False,
            "library_dtype": stored,
            "rtol": UNIT.get(stored, U),
            **tolerance,
        }
    return {
        "name": name,
        "file": "procedural16.safetensors",
        "op": op,
        "passes": ["forward", "backward"],
        "shape": shape,
        "dtype": dtype,
        "param_dtype": "float32",
        "attrs": {"eps": EPS, "layout": layout, "activation": "none", "residual": False, **attrs},
        "inputs": inputs,
        "expected": expected,
    }


file = File()
batch = {"batch_weight": 0.1, "running_var_correction": 1, "run_layouts": ["channels_first", "channels_last"]}
cases = [
    case(file, "p16.layer.7x40.f16", "layer_norm", [7, 40], "float16", "channels_first", {"normalized_shape": [40]}, (1,), 1),
    case(file, "p16.bn.3x5x4x6.bf16", "batch_norm_train", [3, 5, 4, 6], "bfloat16", "channels_first", batch, (0, 2, 3), 1),
    case(file, "p16.bn.3x4x6x5.bf16.last", "batch_norm_train", [3, 4, 6, 5], "bfloat16", "channels_last", batch, (0, 1, 2), 3),
]
file.write("procedural16.safetensors")
with open("manifest.json", "w") as manifest:
    json.dump({"format_version": 1, "set": "procedural16", "case_count": len(cases), "cases": cases}, manifest, indent=1)
    manifest.write("\n")
