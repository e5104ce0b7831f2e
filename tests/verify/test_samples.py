"""What models are given where nobody gave them anything, and what belongs together of what they give."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.verify.keywords import keywords_for
from layoutx.verify.made import probes
from layoutx.verify.outputs import by_name
from layoutx.verify.plain import flat


class Both:
    def forward(self, input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, encoder_outputs=None):
        return None


def test_a_mask_goes_to_a_mask():
    names = ("decoder_padding_mask", "decoder_token_ids", "encoder_padding_mask", "encoder_token_ids")
    found = keywords_for(Both(), names)
    assert found == ("decoder_attention_mask", "decoder_input_ids", "attention_mask", "input_ids")


def test_outputs_with_names_stand_in_the_order_of_these():
    one, two = np.zeros((2, 3)), np.ones((2, 3))
    expected = flat({"encoder_sequence_output": one, "decoder_sequence_output": two})
    found = flat({"last_hidden_state": two, "encoder_last_hidden_state": one})
    assert [array is one for array in by_name(expected, found)] == [True, False]
    plain = flat([two, one])
    assert by_name(expected, plain) is plain
    strange = flat({"left": two, "right": one})
    assert by_name(expected, strange) is strange


def test_masks_are_ones_and_then_zeros_and_ids_are_words():
    keras = pytest.importorskip("keras")
    from layoutx.model.keras_live import live_records

    ids, mask = (keras.Input((40,), dtype="int32", name=name) for name in ("ids", "mask"))
    x = keras.layers.Embedding(19, 4)(ids) * keras.ops.cast(mask, "float32")[..., None]
    model = keras.Model([ids, mask], keras.layers.Dense(3)(x))
    words, kept = probes(model, live_records(model, lambda name: True), 2)
    assert words.min() == 2
    assert words.max() == 18
    assert kept[:, 0].all()
    assert (np.diff(kept, axis=-1) <= 0).all()
    assert (kept == 0).any()
    few, _ = probes(model, live_records(model, lambda name: True), 19)
    assert few.min() < 19


def test_of_several_inputs_without_names_or_dtypes_those_of_an_embedding_are_ids():
    keras = pytest.importorskip("keras")
    from layoutx.model.keras_live import live_records

    image, words = keras.Input((11,)), keras.Input((7,))  # a caption's words are float32 where nobody says int32
    x = keras.layers.LSTM(5)(keras.layers.Embedding(19, 4)(words)) + keras.layers.Dense(5)(image)
    model = keras.Model([image, words], keras.layers.Dense(3)(x))
    numbers, ids = probes(model, live_records(model, lambda name: True))
    assert numbers.dtype.kind == "f"
    assert ids.dtype.kind == "i"
    assert ids.max() < 19
