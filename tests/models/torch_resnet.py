"""ResNet50 as a torch module, written by hand: torch's usual names, or others, defined in another order."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class Block(nn.Module):
    """1x1, 3x3, 1x1, each with its norm, and a projection beside them in the first block of a stage."""

    def __init__(self, given: int, middle: int, stride: int, first: bool, names: str) -> None:
        super().__init__()
        parts: dict[str, nn.Module] = {
            "a": nn.Conv2d(given, middle, 1, stride),
            "a_norm": nn.BatchNorm2d(middle, eps=1.001e-5),
            "b": nn.Conv2d(middle, middle, 3, padding=1),
            "b_norm": nn.BatchNorm2d(middle, eps=1.001e-5),
            "c": nn.Conv2d(middle, 4 * middle, 1),
            "c_norm": nn.BatchNorm2d(4 * middle, eps=1.001e-5),
        }
        if first:
            parts["side"] = nn.Conv2d(given, 4 * middle, 1, stride)
            parts["side_norm"] = nn.BatchNorm2d(4 * middle, eps=1.001e-5)
        self.spelled = TORCH if names == "torch" else {part: part for part in TORCH}
        if names == "none":  # in another order, under names that say nothing
            self.spelled = {part: f"m{chr(ord('z') - i)}" for i, part in enumerate(TORCH)}
            parts = dict(reversed(parts.items()))
        if names == "torch" and first:
            self.downsample = nn.Sequential(parts.pop("side"), parts.pop("side_norm"))
        for part, module in parts.items():
            self.add_module(self.spelled[part], module)
        self.first = first

    def part(self, name: str) -> nn.Module:
        """One of its modules, whatever it is called here."""
        return self.get_submodule(self.spelled[name])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the same with four times the middle channels."""
        side = self.part("side_norm")(self.part("side")(x)) if self.first else x
        x = F.relu(self.part("a_norm")(self.part("a")(x)))
        x = F.relu(self.part("b_norm")(self.part("b")(x)))
        return F.relu(self.part("c_norm")(self.part("c")(x)) + side)


TORCH = {
    "a": "conv1",
    "a_norm": "bn1",
    "b": "conv2",
    "b_norm": "bn2",
    "c": "conv3",
    "c_norm": "bn3",
    "side": "downsample.0",
    "side_norm": "downsample.1",
}


class ResNet50(nn.Module):
    """The network of keras.applications, `classes` outputs before the softmax.

    Args:
        names: "torch" (layer1.0.conv1), "own" (stage1.0.a), or "none": unknown names in reversed order.
    """

    def __init__(self, classes: int = 1000, names: str = "torch", traced: bool = True) -> None:
        super().__init__()
        self.names, self.traced = names, traced
        stages, given = [], 64
        for middle, count, stride in STAGES:
            own = [Block(given if i == 0 else 4 * middle, middle, stride if i == 0 else 1, i == 0, names)
                   for i in range(count)]  # fmt: skip
            given = 4 * middle
            stages.append(nn.Sequential(*own))
        parts: dict[str, nn.Module] = {"conv1": nn.Conv2d(3, 64, 7, 2), "bn1": nn.BatchNorm2d(64, eps=1.001e-5)}
        parts |= {f"layer{i}": stage for i, stage in enumerate(stages, 1)} | {"fc": nn.Linear(2048, classes)}
        self.spelled = dict(zip(parts, parts, strict=True))
        if names == "own":
            self.spelled = {p: p.replace("layer", "stage").replace("fc", "head").replace("1", "_1") for p in parts}
        elif names == "none":
            self.spelled = {p: f"p{chr(ord('z') - i)}" for i, p in enumerate(parts)}
            parts = dict(reversed(parts.items()))
        for part, module in parts.items():
            self.add_module(self.spelled[part], module)

    def part(self, name: str) -> nn.Module:
        """One of its modules, whatever it is called here."""
        return self.get_submodule(self.spelled[name])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, classes)."""
        if not self.traced and bool(x.isnan().any()):  # a tracer cannot follow this
            return x
        x = F.relu(self.part("bn1")(self.part("conv1")(F.pad(x, (3, 3, 3, 3)))))
        x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
        for i in range(1, 5):
            x = self.part(f"layer{i}")(x)
        return self.part("fc")(x.mean((2, 3)))

    def counterpart(self, layer: str) -> str:
        """The module path of a layer of keras.applications.ResNet50."""
        simple = {"conv1_conv": "conv1", "conv1_bn": "bn1", "predictions": "fc"}
        if layer in simple:
            return self.spelled[simple[layer]]
        stage, block, number, kind = layer.split("_")
        path = f"{self.spelled[f'layer{int(stage[4:]) - 1}']}.{int(block[5:]) - 1}"
        part = ("side", "a", "b", "c")[int(number)] + ("_norm" if kind == "bn" else "")
        return f"{path}.{self.get_submodule(path).spelled[part]}"  # type: ignore[union-attr]
