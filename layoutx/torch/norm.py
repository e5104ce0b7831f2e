"""Normalization over any axis of the data, by statistics that Keras counts: of batches, or before training."""

import torch
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Keras' BatchNormalization(axis): y = (x - mean) / sqrt(variance + eps) * weight + bias, by position on one axis.

    x of any shape with `num_features` numbers on that axis; y likewise. Names and statistics are those of
    `nn.BatchNorm2d`; in training the running variance is the unbiased one, as in torch.

    Args:
        axis: the axis of the data, as the torch model sees it, that is not averaged over.
        momentum: share of the new statistics in an update, as in torch (Keras gives that of the old ones).
        eps_added_to: "variance", or "deviation": / (sqrt(variance) + eps), as Keras 1.0.7 on Theano.
    """

    def __init__(
        self,
        num_features: int,
        axis: int = 1,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        eps_added_to: str = "variance",
    ) -> None:
        super().__init__()
        if eps_added_to not in ("variance", "deviation"):
            raise ValueError(f"eps is added to 'variance' or 'deviation', not to {eps_added_to!r}")
        self.num_features = num_features
        self.axis = axis
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.eps_added_to = eps_added_to
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """x normalized."""
        x = x.movedim(self.axis, -1)
        mean, variance = self.running_mean, self.running_var
        if self.training:
            others = list(range(x.dim() - 1))
            mean, variance = x.mean(others), x.var(others, unbiased=False)
            many = x.numel() // self.num_features
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * many / max(many - 1, 1), self.momentum)
        inner = self.eps if self.eps_added_to == "variance" else 0.0
        y = (x - mean) / (torch.sqrt(variance + inner) + (self.eps - inner))
        if self.weight is not None and self.bias is not None:
            y = y * self.weight + self.bias
        return y.movedim(-1, self.axis)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        text = f"{self.num_features}, axis={self.axis}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        return text + (", eps_added_to='deviation'" if self.eps_added_to == "deviation" else "")


class Normalization(nn.Module):
    """Keras' Normalization: y = (x - mean) / max(sqrt(variance), 1e-7), by position on one axis of the data.

    x (...) of any shape, `num_features` numbers on that axis; y likewise. The statistics are buffers.

    Args:
        axis: the axis of the data, as the torch model sees it, that has statistics of its own.
        invert: y = x * max(sqrt(variance), 1e-7) + mean, the way back.
    """

    def __init__(self, num_features: int, axis: int = 1, invert: bool = False) -> None:
        super().__init__()
        self.num_features = num_features
        self.axis = axis
        self.invert = invert
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("variance", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """x standardised."""
        shape = [1] * x.dim()
        shape[self.axis] = self.num_features
        mean, root = self.mean.view(shape), self.variance.view(shape).sqrt().clamp(min=1e-7)
        return x * root + mean if self.invert else (x - mean) / root

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.num_features}, axis={self.axis}, invert={self.invert}"
