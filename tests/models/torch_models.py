"""The same models written by hand in torch: other module names, channels first, padding made explicit."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cnn(nn.Module):
    """Channels first; "same" at stride 2 on an even size pads one pixel at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 5, 3, stride=2)
        self.norm = nn.BatchNorm2d(5, eps=2e-3, momentum=0.3)
        self.second = nn.Conv2d(5, 7, (3, 2))
        self.head = nn.Sequential(nn.Linear(42, 11), nn.ReLU(), nn.Linear(11, 10))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 8, 8) -> (batch, 10)."""
        x = self.norm(F.relu(self.first(F.pad(x, (0, 1, 0, 1)))))
        return self.head(torch.tanh(self.second(x)).flatten(1))


class CnnLast(Cnn):
    """The same, flattened with channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 8, 8) -> (batch, 10)."""
        x = self.norm(F.relu(self.first(F.pad(x, (0, 1, 0, 1)))))
        return self.head(torch.tanh(self.second(x)).permute(0, 2, 3, 1).flatten(1))


class Separable(nn.Module):
    """The separable convolution as two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 2)
        self.depth = nn.Conv2d(3, 6, (3, 2), groups=3)
        self.sep_depth = nn.Conv2d(6, 12, (2, 3), groups=6, bias=False)
        self.sep_point = nn.Conv2d(12, 7, 1)
        self.out = nn.Linear(7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 8, 8) -> (batch, 10)."""
        x = torch.tanh(self.depth(F.relu(self.stem(x))))
        x = F.relu(self.sep_point(self.sep_depth(x)))
        return self.out(x.mean((2, 3)))


class BiLstm(nn.Module):
    """The last state of the backward direction is that of the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(17, 5)
        self.encoder = nn.LSTM(5, 7, batch_first=True, bidirectional=True)
        self.summary = nn.LSTM(14, 3, batch_first=True, bidirectional=True)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) -> (batch, 2)."""
        y, _ = self.encoder(self.table(x.long()))
        _, (h, _) = self.summary(y)
        return self.out(torch.cat((h[-2], h[-1]), dim=1))


class BiLstmSwapped(BiLstm):
    """The planted mistake: the two directions of the summary in the wrong order."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) -> (batch, 2)."""
        y, _ = self.encoder(self.table(x.long()))
        _, (h, _) = self.summary(y)
        return self.out(torch.cat((h[-1], h[-2]), dim=1))


class GruStack(nn.Module):
    """Two Keras GRUs as one module of two layers."""

    def __init__(self, hidden: int = 7) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, hidden, num_layers=2, batch_first=True)
        self.out = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, 3) -> (batch, 2)."""
        return self.out(self.rnn(x)[0][:, -1])


class GruPair(nn.Module):
    """Two Keras GRUs as two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.GRU(3, 7, batch_first=True)
        self.upper = nn.GRU(7, 7, batch_first=True)
        self.out = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, 3) -> (batch, 2)."""
        return self.out(self.upper(self.lower(x)[0])[0][:, -1])


class Transformer(nn.Module):
    """One block, the norms after the residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(19, 12)
        self.mix = nn.MultiheadAttention(12, 3, batch_first=True)
        self.ln_a = nn.LayerNorm(12, eps=1e-5)
        self.wide = nn.Linear(12, 23)
        self.narrow = nn.Linear(23, 12)
        self.ln_b = nn.LayerNorm(12, eps=2e-5)
        self.out = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) -> (batch, 2)."""
        y = self.table(x.long())
        y = self.ln_a(y + self.mix(y, y, y, need_weights=False)[0])
        y = self.ln_b(y + self.narrow(F.silu(self.wide(y))))
        return self.out(y.mean(1))


class TwoInputs(nn.Module):
    """The image's maps are flattened with channels first before the vector is put behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.side = nn.Linear(5, 4)
        self.hidden = nn.Linear(22, 13)
        self.scores = nn.Linear(13, 10)

    def forward(self, image: Tensor, aux: Tensor) -> Tensor:
        """(batch, 1, 8, 8), (batch, 5) -> (batch, 10)."""
        x = F.max_pool2d(F.relu(self.conv(image)), (2, 3)).flatten(1)
        x = torch.cat((x, torch.tanh(self.side(aux))), dim=1)
        return self.scores(F.relu(self.hidden(x)))


class Autoencoder(nn.Module):
    """The transposed convolution is cropped to input length times stride, the odd element from the end."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Linear(64, 13)
        self.widen = nn.Linear(13, 48)
        self.up = nn.ConvTranspose2d(3, 5, 3, stride=2)
        self.final = nn.ConvTranspose2d(5, 1, (2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 8, 8) -> (batch, 1, 8, 8)."""
        y = F.relu(self.widen(torch.tanh(self.code(x.flatten(1)))))
        y = F.relu(self.up(y.reshape(-1, 3, 4, 4))[:, :, :8, :8])
        return self.final(y)[:, :, :8, 1:9]


class Nested(nn.Module):
    """A causal convolution: the padding lies on the left of time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 5, 3, dilation=2)
        self.head = nn.ModuleDict({"d1": nn.Linear(5, 7), "b1": nn.BatchNorm1d(7, eps=1e-3), "d2": nn.Linear(7, 3)})
        self.out = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, time) -> (batch, 2)."""
        x = torch.tanh(self.conv(F.pad(x, (4, 0)))).transpose(1, 2)
        x = F.relu(self.head["d1"](x)).transpose(1, 2)
        x = self.head["d2"](self.head["b1"](x).transpose(1, 2))
        return self.out(x.mean(1))


MODELS = {
    "cnn": Cnn,
    "separable": Separable,
    "bilstm": BiLstm,
    "stacked_gru": GruStack,
    "transformer": Transformer,
    "two_inputs": TwoInputs,
    "autoencoder": Autoencoder,
    "nested": Nested,
}


def outputs_of(model: nn.Module, inputs: list[np.ndarray], first: bool = True) -> np.ndarray:
    """What a module gives for inputs with channels last; maps, and series where `first`, are turned."""
    dtype = next(p.dtype for p in model.parameters())
    turned = [np.moveaxis(x, -1, 1) if x.ndim == 4 or (x.ndim == 3 and first) else x for x in inputs]
    tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in turned]
    with torch.no_grad():
        y = model.eval()(*(t.to(dtype) if t.is_floating_point() else t for t in tensors))
    found = y.numpy()
    return np.moveaxis(found, 1, -1) if found.ndim == 4 else found
