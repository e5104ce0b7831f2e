"""Modules of PyTorch with a Keras layer's exact function, for layers that `torch.nn` does not have.

Nothing else in layoutx imports this package: `import layoutx.torch` is the user's own line. Every module is an
ordinary `nn.Module`, can be scripted, and keeps its weights as `torch.nn` does (channels first, gates i f g o and
r z n). docs/torch-modules.md lists what each computes, and which Keras layer that is.
"""

from layoutx.torch.conv import Conv1dSame, Conv2dSame, Conv3dSame
from layoutx.torch.conv_lstm import ConvLSTM1d, ConvLSTM2d, ConvLSTM3d
from layoutx.torch.local import LocallyConnected1d, LocallyConnected2d
from layoutx.torch.norm import BatchNorm, Normalization
from layoutx.torch.pool import AvgPool1dSame, AvgPool2dSame, AvgPool3dSame, MaxPool1dSame, MaxPool2dSame, MaxPool3dSame
from layoutx.torch.recurrent import GRU, LSTM, RNN
from layoutx.torch.transposed import ConvTranspose1dSame, ConvTranspose2dSame, ConvTranspose3dSame

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AvgPool1dSame",
    "AvgPool2dSame",
    "AvgPool3dSame",
    "BatchNorm",
    "Conv1dSame",
    "Conv2dSame",
    "Conv3dSame",
    "ConvLSTM1d",
    "ConvLSTM2d",
    "ConvLSTM3d",
    "ConvTranspose1dSame",
    "ConvTranspose2dSame",
    "ConvTranspose3dSame",
    "LocallyConnected1d",
    "LocallyConnected2d",
    "MaxPool1dSame",
    "MaxPool2dSame",
    "MaxPool3dSame",
    "Normalization",
]
