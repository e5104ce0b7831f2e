"""A torch network for 26 letters with the layers of the digits model before its head: somewhere to start training."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Letters(nn.Module):
    """Images (letter, 1, 8, 8) -> 26 scores."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the same start each time; the caller's own numbers go on
            torch.manual_seed(26)
            self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
            self.bn1 = nn.BatchNorm2d(12, eps=1e-3)
            self.conv2 = nn.Conv2d(12, 20, 3, stride=2)
            self.dense1 = nn.Linear(80, 48)
            self.head = nn.Linear(48, 26)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The digits model's own steps, with another head."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(self.conv2(F.pad(x, (0, 1, 0, 1))))
        return self.head(F.relu(self.dense1(x.flatten(1))))
