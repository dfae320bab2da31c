"""Makes the file beside it: layer norm and RMS norm with a y of int8, as ONNX Runtime has it (LayerNormalization, QuantizeLinear), and by a scale of each row in
float64, by the formula of vLLM's `rms_norm_dynamic_per_token_quant`: scale = max|y| / 127, round to even.

    pip install numpy onnx onnxruntime
    python make.py

Numbers of which y is within a thousandth of a half are left out: there either neighbour is right.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

rng = np.random.default_rng(3)
EPS = 1e-5


def layer_norm(x, gamma, beta):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(x.var(-1, keepdims=True) + EPS) * gamma + beta


def rms_norm(x, gamma):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * gamma


def onnx_int8(x, gamma, beta, scale, zero):
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["y"], axis=-1, epsilon=EPS),
        helper.make_node("QuantizeLinear", ["y", "scale", "zero"], ["q"]),
    ]
    info = lambda name, shape, kind=TensorProto.FLOAT: helper.make_tensor_value_info(name, kind, shape)
    inputs = [info("x", x.shape), info("gamma", gamma.shape), info("beta", beta.shape), info("scale", []), info("zero", [], TensorProto.INT8)]
    graph = helper.make_graph(nodes, "int8", inputs, [info("q", x.shape, TensorProto.INT8)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"x": x, "gamma": gamma, "beta": beta, "scale": np.array(scale, np.float32), "zero": np.array(zero, np.int8)}
    return session.run(None, given)[0]


def known(quotient):
    return np.abs(np.abs(quotient - np.floor(quotient)) - 0.5) > 1e-3


def case(norm, scale=None, zero=0, rows=4, width=24):
    x = rng.normal(0.3, 2.0, (rows, width)).astype(np.float32)
    gamma = rng.normal(1.0, 0.3, width).astype(np.float32)
    beta = rng.normal(0.0, 0.5, width).astype(np.float32)
    wide = [value.astype(np.float64) for value in (x, gamma, beta)]
    y = layer_norm(*wide) if norm == "layer" else rms_norm(*wide[:2])
    scales = np.abs(y).max(-1) / 127 if scale is None else np.full(rows, scale)
    quotient = y / scales[:, None]
    if scale is None:
        q = np.clip(np.rint(quotient), -128, 127)
    else:
        q = onnx_int8(x, gamma, beta, scale, zero)
    flat = lambda value: np.asarray(value, dtype=np.float64).flatten().tolist()
    return {
        "norm": norm,
        "scale": scale,
        "zero": zero,
        "shape": [rows, width],
        "x": flat(x),
        "gamma": flat(gamma),
        "beta": flat(beta),
        "scales": flat(scales),
        "q": [int(value) if sure else None for value, sure in zip(q.flatten(), known(quotient).flatten())],
    }


cases = [
    case("layer", 0.02),
    case("layer", 0.03, -100),
    case("layer", 0.001, 5),
    case("layer"),
    case("rms"),
]
path = pathlib.Path(__file__).parent / "cases.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"onnxruntime": "{onnxruntime.__version__}", "cases": [\n{lines}\n]}}\n')
