"""rows.h5 ported by hand, as people do it: with two mistakes, and no error message for either."""

from __future__ import annotations

from pathlib import Path

import h5py
import torch
from rows_torch import Rows


def model(path: str = "examples/rows.h5") -> Rows:
    """The module with the weights copied over.

    The gates are taken for ONNX's order (i o f c), and the bias of the output layer is forgotten.
    """
    with h5py.File(Path(path)) as file:
        arrays = {name: {} for name in file["model_weights"]}

        def keep(name: str, found: object) -> None:
            if isinstance(found, h5py.Dataset):
                arrays[name.split("/")[0]][name.rsplit("/", 1)[-1].split(":")[0]] = torch.tensor(found[()])

        file["model_weights"].visititems(keep)
    made = Rows().eval()
    lstm, dense, digit = arrays["lstm_1"], arrays["dense_1"], arrays["digit"]
    gates = torch.arange(128).reshape(4, 32)[[0, 2, 3, 1]].reshape(-1)  # i o f c to i f g o, where i f c o is stored
    made.load_state_dict(
        {
            "reader.weight_ih_l0": lstm["kernel"].T[gates],
            "reader.weight_hh_l0": lstm["recurrent_kernel"].T[gates],
            "reader.bias_ih_l0": lstm["bias"][gates],
            "reader.bias_hh_l0": torch.zeros(128),
            "mixer.weight": dense["kernel"].T,
            "mixer.bias": dense["bias"],
            "head.weight": digit["kernel"].T,
            "head.bias": torch.zeros(10),
        }
    )
    return made
