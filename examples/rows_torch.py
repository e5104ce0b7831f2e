"""The torch module that somebody wrote for `rows` of train_more.py, with names of their own."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


class Rows(nn.Module):
    """Reads a picture (batch, 8, 8) row by row; ink (batch, 1) comes in beside the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.LSTM(8, 32, batch_first=True)
        self.mixer = nn.Linear(33, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, picture: torch.Tensor, ink: torch.Tensor) -> torch.Tensor:
        """Probabilities of the ten digits, (batch, 10)."""
        states, _ = self.reader(picture)
        hidden = torch.relu(self.mixer(torch.cat([states[:, -1], ink], dim=1)))
        return torch.softmax(self.head(hidden), dim=-1)


def ported(path: str = "build/rows.safetensors") -> Rows:
    """The module with the weights that `layoutx port` wrote."""
    model = Rows().eval()
    model.load_state_dict(load_file(Path(path)))
    return model
