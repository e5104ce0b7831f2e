"""The layouts of language models against their published code, replayed in torch (language_layers.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import language_layers as ll
import numpy as np
import pytest
import torch

from layoutx.errors import LayoutxError
from layoutx.model.settings import carry
from layoutx.plan.plan import plan
from layoutx.plan.run import run
from layoutx.spec.registry import registry
from layoutx.verify.witness import Case, bind_case, check

Shapes = Mapping[str, tuple[int, ...]]
BATCH, TIME, EMBED, HEAD, THETA = 2, 5, 11, 6, 97.0
KV, REP = 2, 3  # query heads: 6
HEADS, INNER = KV * REP, 7


def made(form: str, config: Mapping[str, Any], shapes: Shapes, width: int, run: Callable[..., Any], **how: Any) -> Case:
    """One case: random weights and what the published code makes of a random input."""
    rng = np.random.default_rng(sum(map(ord, form)) + len(config))
    w = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    kind = registry().kind_of(form).name
    x = rng.normal(0, 1, (BATCH, TIME, width) if "attention" in kind else (BATCH, width))
    y = run({name: torch.from_numpy(a) for name, a in w.items()}, torch.from_numpy(x), **how).numpy()
    inputs = dict.fromkeys(("query", "key", "value"), x) if kind == "attention" else {"x": x}
    return Case(form, config, {}, w, inputs, {"y": y}, form.partition(".")[0], "replayed", "float64")


def projections(names: str, out: str, bias: bool) -> Shapes:
    many = {"q": HEADS * HEAD, "k": KV * HEAD, "v": KV * HEAD}
    shapes: dict[str, tuple[int, ...]] = {names.format(n): (size, EMBED) for n, size in many.items()}
    shapes[out] = (EMBED, HEADS * HEAD)
    return with_biases(shapes) if bias else shapes


def attention() -> Iterator[Case]:
    for bias in (False, True):
        config = {"num_attention_heads": HEADS, "num_key_value_heads": KV, "attention_bias": bias, "rope_theta": THETA}
        shapes = projections("{}_proj.weight", "o_proj.weight", bias)
        yield made("llama.Attention", config, shapes, EMBED, ll.llama_attention, heads=HEADS, kv=KV, theta=THETA)
    how = {"heads": HEADS, "kv": KV, "theta": THETA}
    config = {"n_heads": HEADS, "n_kv_heads": KV, "rope_theta": THETA}
    yield made("meta.Attention", config, projections("w{}.weight", "wo.weight", False), EMBED, ll.meta_attention, **how)
    config, shapes = (
        {"head_count": HEADS, "head_count_kv": KV, "freq_base": THETA},
        projections("attn_{}.weight", "attn_output.weight", False),
    )
    yield made("gguf.LlamaAttention", config, shapes, EMBED, ll.meta_attention, **how, names="attn_{}.weight")
    config = {"num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": HEAD, "rope_theta": THETA}
    shapes = {"qkv_proj.weight": ((HEADS + 2 * KV) * HEAD, EMBED), "o_proj.weight": (EMBED, HEADS * HEAD)}
    yield made("phi3.Attention", config, shapes, EMBED, ll.phi3_attention, **how, head=HEAD)
    for form, size, turned in (("neox.Attention", 6, 6), ("neox.PartialAttention", 13, 4)):
        for bias in (True, False):
            config = {"num_attention_heads": 3, "rotary_emb_base": THETA, "attention_bias": bias}
            config |= {"head_size": size, "rotary_ndims": turned} if turned < size else {}
            shapes = {"query_key_value.weight": (9 * size, EMBED), "dense.weight": (EMBED, 3 * size)}
            shapes |= {"query_key_value.bias": (9 * size,), "dense.bias": (EMBED,)} if bias else {}
            yield made(form, config, shapes, EMBED, ll.neox_attention, heads=3, rotary_ndims=turned, theta=THETA)
    for rotary in ("half", "interleaved", ""):
        for biases in ({}, {"add_bias_linear": False}, {"add_bias_linear": False, "add_qkv_bias": True}):
            config = {"num_attention_heads": HEADS, "num_query_groups": KV, "kv_channels": HEAD, **biases}
            config |= {"rotary_base": THETA, "rotary_interleaved": rotary == "interleaved"} if rotary else {}
            shapes = {
                "linear_qkv.weight": ((HEADS + 2 * KV) * HEAD, EMBED),
                "linear_proj.weight": (EMBED, HEADS * HEAD),
            }
            shapes |= {"linear_qkv.bias": ((HEADS + 2 * KV) * HEAD,)} if biases != {"add_bias_linear": False} else {}
            shapes |= {} if biases else {"linear_proj.bias": (EMBED,)}
            form = "megatron.RotarySelfAttention" if rotary else "megatron.SelfAttention"
            how = {"heads": HEADS, "groups": KV, "theta": THETA, "rotary": rotary}
            yield made(form, config, shapes, EMBED, ll.megatron_attention, **how)
    shapes = {"c_attn.weight": (15, 45), "c_attn.bias": (45,), "c_proj.weight": (15, 15), "c_proj.bias": (15,)}
    yield made("gpt2.Attention", {"num_attention_heads": 3}, shapes, 15, ll.gpt2_attention, heads=3)


def with_biases(shapes: Shapes) -> Shapes:
    """After each weight its bias, as modules list them."""
    return {n: size for w, s in shapes.items() for n, size in ((w, s), (w.replace("weight", "bias"), s[:1]))}


def others() -> Iterator[Case]:
    yield made("gpt2.Conv1D", {}, {"weight": (EMBED, 7), "bias": (7,)}, EMBED, ll.gpt2_conv1d)
    for bias in (False, True):
        shapes = {
            "gate_proj.weight": (INNER, EMBED),
            "up_proj.weight": (INNER, EMBED),
            "down_proj.weight": (EMBED, INNER),
        }
        shapes = with_biases(shapes) if bias else shapes
        yield made("llama.MLP", {"mlp_bias": bias}, shapes, EMBED, ll.llama_mlp)
        yield made("torch.GatedMLP", {"bias": bias}, shapes, EMBED, ll.llama_mlp)
        shapes = {"linear_fc1.weight": (2 * INNER, EMBED), "linear_fc2.weight": (EMBED, INNER)}
        shapes = with_biases(shapes) if bias else shapes
        yield made("megatron.MLP", {"add_bias_linear": bias}, shapes, EMBED, ll.megatron_mlp)
    shapes = {"ffn_gate.weight": (INNER, EMBED), "ffn_up.weight": (INNER, EMBED), "ffn_down.weight": (EMBED, INNER)}
    yield made("gguf.FFN", {}, with_biases(shapes), EMBED, ll.gguf_ffn)
    shapes = {"w1.weight": (INNER, EMBED), "w2.weight": (EMBED, INNER), "w3.weight": (INNER, EMBED)}
    yield made("meta.FeedForward", {}, shapes, EMBED, ll.meta_feed_forward)
    shapes = {"gate_up_proj.weight": (2 * INNER, EMBED), "down_proj.weight": (EMBED, INNER)}
    yield made("phi3.MLP", {"hidden_act": "gelu"}, shapes, EMBED, ll.phi3_mlp)


CASES = [*attention(), *others()]
by_name = partial(pytest.mark.parametrize, ids=lambda case: case.name)


@by_name("case", CASES)
def test_the_spec_computes_what_the_published_code_computes(case: Case) -> None:
    assert check(case, registry()) <= 1e-12


def planted(case: Case) -> Iterator[tuple[str, Case]]:
    """Two arrays of one shape exchanged, or the rows of one moved on by one."""
    held = dict(case.tensors)
    for one, two in combinations(held, 2):
        if held[one].shape == held[two].shape:
            yield f"{one} and {two} exchanged", replace(case, tensors={**held, one: held[two], two: held[one]})
    for name, array in held.items():
        for axis in range(array.ndim):
            yield f"{name} axis {axis} rolled", replace(case, tensors={**held, name: np.roll(array, 1, axis)})


@by_name("case", CASES)
def test_a_mistake_in_any_array_is_seen(case: Case) -> None:
    """A bias of all keys alone adds the same to every score of a query where nothing turns: softmax does not see it."""
    missed = [what for what, wrong in planted(case) if check(wrong, registry()) < 1e-9]
    assert not missed


def moved(case: Case, form: str, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights of a case in another form."""
    ((source, tensors),) = bind_case(case, registry())
    target = registry().bind(form, config, sizes=source.sizes)
    return run(plan(source, target), tensors).tensors


LLAMA = next(c for c in CASES if c.form == "llama.Attention")
META = next(c for c in CASES if c.form == "meta.Attention")


def permute(w: np.ndarray, heads: int) -> np.ndarray:
    """transformers convert_llama_weights_to_hf.py, write_model.permute: Meta's rows to those of Hugging Face."""
    rows, cols = w.shape
    return w.reshape(heads, rows // heads // 2, 2, cols).transpose(0, 2, 1, 3).reshape(rows, cols)


def test_meta_rows_become_hugging_face_rows_as_its_own_script_makes_them() -> None:
    found = moved(META, "llama.Attention", {"rope_theta": THETA})
    for name, heads in (("q", HEADS), ("k", KV)):
        np.testing.assert_array_equal(found[f"{name}_proj.weight"], permute(META.tensors[f"w{name}.weight"], heads))
    np.testing.assert_array_equal(found["v_proj.weight"], META.tensors["wv.weight"])


@pytest.mark.parametrize(
    ("form", "config"),
    [
        ("meta.Attention", {"rope_theta": THETA}),
        ("gguf.LlamaAttention", {"freq_base": THETA}),
        ("phi3.Attention", {"rope_theta": THETA}),
        ("megatron.RotarySelfAttention", {"rotary_base": THETA, "add_bias_linear": False}),
        ("megatron.RotarySelfAttention", {"rotary_base": THETA, "add_bias_linear": False, "rotary_interleaved": True}),
    ],
)
def test_attention_goes_to_every_other_form_and_back_bit_for_bit(form: str, config: Mapping[str, Any]) -> None:
    config = {**config, **SIZED[form]}
    there = moved(LLAMA, form, config)
    if form == "gguf.LlamaAttention":  # its biases are optional: without the zeros, as a file has it
        there = {name: array for name, array in there.items() if array.any()}
    case = replace(LLAMA, form=form, config=config, tensors=there)
    assert check(case, registry()) <= 1e-12
    back = moved(case, "llama.Attention", LLAMA.config)
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in LLAMA.tensors.items()}


SIZED: Mapping[str, Mapping[str, int]] = {
    "meta.Attention": {"n_heads": HEADS, "n_kv_heads": KV},
    "gguf.LlamaAttention": {"head_count": HEADS, "head_count_kv": KV},
    "phi3.Attention": {"num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": HEAD},
    "megatron.RotarySelfAttention": {"num_attention_heads": HEADS, "num_query_groups": KV, "kv_channels": HEAD},
}


def test_another_theta_is_another_function() -> None:
    with pytest.raises(LayoutxError, match="theta"):
        moved(LLAMA, "meta.Attention", {"rope_theta": 10000.0})


NEOX = ("PartialAttention", "Attention")


def test_heads_turned_in_part_are_not_heads_turned_whole() -> None:
    part, whole = (bind_case(next(c for c in CASES if c.form == f"neox.{name}"), registry())[0][0] for name in NEOX)
    with pytest.raises(LayoutxError, match="cannot become"):
        plan(part, whole)
    whole = registry().form("neox.Attention")
    with pytest.raises(LayoutxError, match="rotary_pct"):
        registry().bind(
            whole.name, {"rotary_pct": 0.25}, sizes={"kv": 3, "pair": 3, "value": 6, "embed": 11, "out": 11}
        )


GPT2 = next(c for c in CASES if c.form == "gpt2.Attention")


def test_a_layer_that_always_masks_says_what_to_pass_to_one_that_is_told_when_called() -> None:
    ((source, tensors),) = bind_case(GPT2, registry())
    target = registry().bind("torch.MultiheadAttention", {"num_heads": 3, "batch_first": True}, sizes=source.sizes)
    (line,) = carry(source, target)
    assert "no position sees a later one" in line
    how = "attn_mask=nn.Transformer.generate_square_subsequent_mask(length)"
    assert how in line
    layer = torch.nn.MultiheadAttention(15, 3, batch_first=True, dtype=torch.float64)
    layer.load_state_dict({name: torch.from_numpy(a) for name, a in run(plan(source, target), tensors).tensors.items()})
    x = torch.from_numpy(GPT2.inputs["query"])
    space = {"nn": torch.nn, "length": TIME}
    mask = eval(how.partition("=")[2], space).double()
    weights = {name: torch.from_numpy(a) for name, a in GPT2.tensors.items()}
    wanted = ll.gpt2_attention(weights, x, heads=3, causal=True)
    torch.testing.assert_close(layer(x, x, x, attn_mask=mask, need_weights=False)[0], wanted, rtol=0, atol=1e-12)
    (line,) = carry(target, source)
    assert "the same function only where torch.MultiheadAttention is called with attn_mask=" in line
    assert carry(source, source) == []


def test_gate_and_up_come_apart() -> None:
    fused = next(c for c in CASES if c.form == "phi3.MLP")
    found = moved(fused, "torch.GatedMLP", {"bias": False, "activation": "gelu"})
    whole = fused.tensors["gate_up_proj.weight"]
    np.testing.assert_array_equal(found["gate_proj.weight"], whole[:INNER])
    np.testing.assert_array_equal(found["up_proj.weight"], whole[INNER:])
