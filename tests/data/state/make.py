"""Makes the files beside it: the state of a small network as PyTorch leaves it after training, and the same layers by the
names and with the variance of Keras and Flax.

    pip install torch numpy safetensors
    python make.py
"""

from pathlib import Path

import numpy
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

HERE = Path(__file__).parent
# Values per channel of every training batch below: 4 samples of 6 x 6.
COUNT = 4 * 6 * 6


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 5, 3, padding=1)
        self.bn1 = torch.nn.BatchNorm2d(5)
        self.downsample = torch.nn.Sequential(
            torch.nn.Conv2d(3, 5, 1, bias=False), torch.nn.BatchNorm2d(5, affine=False)
        )

    def forward(self, x):
        return torch.relu(self.bn1(self.conv1(x)) + self.downsample(x))


def main():
    torch.manual_seed(6)
    net = torch.nn.Sequential()
    net.add_module("stem", torch.nn.BatchNorm2d(3))
    net.add_module("block", Block())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        loss = (net(torch.randn(4, 3, 6, 6) * 3 + step) - 1).square().mean()
        loss.backward()
        optimizer.step()
    net.eval()
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(state, HERE / "pytorch.safetensors", metadata={"format": "pt", "made by": "make.py ü"})

    with torch.no_grad():
        x = torch.randn(2, 3, 2, 3)
        save_file({"x": x, "y": net.stem(x)}, HERE / "stem_eval.safetensors")

    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    keras, flax = {}, {}
    for layer in ["stem", "block.bn1", "block.downsample.1"]:
        var = (arrays[f"{layer}.running_var"].astype("f8") * (COUNT - 1) / COUNT).astype("f4")
        path = layer.replace(".", "/")
        keras[f"{path}/moving_mean"] = arrays[f"{layer}.running_mean"]
        keras[f"{path}/moving_variance"] = var
        flax[f"batch_stats.{layer}.mean"] = arrays[f"{layer}.running_mean"]
        flax[f"batch_stats.{layer}.var"] = var
        if f"{layer}.weight" in arrays:
            keras[f"{path}/gamma"] = flax[f"params.{layer}.scale"] = arrays[f"{layer}.weight"]
            keras[f"{path}/beta"] = flax[f"params.{layer}.bias"] = arrays[f"{layer}.bias"]
    flax["params.block.conv1.kernel"] = numpy.ascontiguousarray(arrays["block.conv1.weight"].transpose(2, 3, 1, 0))
    save_arrays(keras, HERE / "keras.safetensors")
    save_arrays(flax, HERE / "flax.safetensors")


if __name__ == "__main__":
    main()
