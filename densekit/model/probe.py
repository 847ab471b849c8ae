"""The leak probe: whether a language model computes in packed micro-batches what transformers
computes of each sequence alone.

It runs on a small model of the same config.json with drawn weights: what an architecture does with
positions, masks and its attention does not depend on their sizes. An architecture may mix tokens
outside of its attention, or hand its window over in a mask alone, so logits and gradients are
compared, whatever it calls.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from transformers.configuration_utils import PreTrainedConfig

from densekit.errors import DataError, in_a_line
from densekit.model.attention import sdpa
from densekit.model.attention.packed import PackedAttention
from densekit.model.micro_batch import MicroBatch
from densekit.model.pretrained import quiet_transformers
from densekit.model.trainable_part import TrainablePart

LENGTHS = (19, 14)
"""Tokens of the two sequences: both longer than WINDOW."""
WINDOW = 8
"""What windows and chunks of a configuration are narrowed to, so that they matter."""
VOCABULARY = 128
LAYERS = 4
"""Layers of the small model, where all layers are of one kind."""
HEADS = 2
"""KV heads at most, and query heads for each of them."""
MAX_PARAMETERS = 200_000_000
"""A model that cannot be made smaller than this is not probed, and so not trained."""
TOLERANCE = 1e-4
"""Relative L2 distance; fp32 rounds to about 1e-6, and what one token too many changes is some per
cent.
"""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What a model computes of the two sequences."""

    logits: Tensor
    """[T, V]"""
    gradients: Tensor
    """Of all parameters, one after the other."""
    sizes: Sequence[int]
    """Elements of each parameter."""

    def distance(self, other: "_Outcome", part: slice | None = None) -> float:
        """Largest relative L2 distance of the logits and of any parameter's gradient; of the logits
        of a `part` of the tokens alone where one is given.
        """
        where = part or slice(None)
        logits = other.logits[where].norm()
        found = float((self.logits[where] - other.logits[where]).norm() / logits)
        if part is not None:
            return found
        # A gradient that is zero but for rounding (a key bias, which softmax cancels) has no scale
        # of its own.
        floor = 1e-2 * float(other.gradients.norm())
        pairs = zip(
            self.gradients.split([*self.sizes]), other.gradients.split([*self.sizes]), strict=True
        )
        return max(found, *(float((a - b).norm()) / max(float(b.norm()), floor) for a, b in pairs))


def probe(config: PreTrainedConfig) -> str | None:
    """Why a language model of this configuration cannot be trained in packed micro-batches; None
    when its loss and gradients are those of transformers' eager model, sample by sample, and no
    sequence changes another one.
    """
    with quiet_transformers():
        try:
            model = _small_model(config)
            alone = _alone(model)
        except Exception as error:  # whatever transformers raises for a configuration
            return (
                "could not be tried with drawn weights, so nothing says that it trains right "
                f"({in_a_line(error)})"
            )
        if not (alone.logits.isfinite().all() and alone.gradients.isfinite().all()):
            return (
                "computes numbers that are not finite with drawn weights (an eps, a theta or a "
                "factor of its config.json may be wrong)"
            )
        return _packed_problem(model, alone)


def _packed_problem(model: Any, alone: _Outcome) -> str | None:
    attend = _CountedAttend()
    kernel = PackedAttention("probe", attend)
    try:
        model.set_attn_implementation(kernel.name)
        packed = _packed(model, _ids())
        changed = _packed(model, _ids(change=0)), _packed(model, _ids(change=1))
    except DataError as error:
        return str(error).partition(";")[0]
    except Exception as error:
        if "cu_seqlens of a micro-batch" in str(error):
            return (
                "does not hand the places of the sequences through to its attention "
                "(transformers' own class drops them, or makes an attention mask)"
            )
        return f"does not run on a packed micro-batch ({in_a_line(error)})"
    if not attend.calls:
        return (
            "computes attention in its own code, not through transformers' attention interface: "
            "the sequences of a micro-batch would see each other"
        )
    leaks = [
        packed.distance(other, part)
        for part, other in ((slice(LENGTHS[0], None), changed[0]), (slice(LENGTHS[0]), changed[1]))
    ]
    if not max(leaks) <= TOLERANCE:
        return "lets the sequences of a micro-batch see each other outside of its attention"
    distance = packed.distance(alone)
    if not distance <= TOLERANCE:
        return (
            f"computes something else in a micro-batch than transformers alone (relative distance "
            f"{distance:.1e} of logits or gradients)"
        )
    if max(leaks):
        return (
            "rounds a sequence differently when another one of its micro-batch changes (experts "
            "share their matrix products); densekit keeps sequences apart to the last bit"
        )
    try:
        model.set_attn_implementation("sdpa")
    except ValueError:
        return "has no SDPA attention in transformers, which answers are generated with"
    return None


class _CountedAttend:
    """The SDPA kernel, and how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *arguments: Any) -> Tensor:
        self.calls += 1
        return sdpa.attend(*arguments)


def _ids(change: int | None = None) -> list[Tensor]:
    """Token ids of the two sequences; every token of the `change`d one is another one."""
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randint(3, VOCABULARY, (n,), generator=generator) for n in LENGTHS]
    if change is not None:
        drawn[change] = 3 + (drawn[change] - 2) % (VOCABULARY - 3)
    return drawn


def _alone(model: Any) -> _Outcome:
    """Of transformers' eager model, one sequence at a time."""
    model.zero_grad()
    logits = []
    for ids in _ids():
        output = model(input_ids=ids[None], use_cache=False).logits[0]
        F.cross_entropy(output[:-1].float(), ids[1:], reduction="sum").backward()
        logits.append(output.detach())
    return _outcome(model, torch.cat(logits))


def _packed(model: Any, ids: Sequence[Tensor]) -> _Outcome:
    """Of one micro-batch, through the modules that train."""
    model.zero_grad()
    starts = [0, *itertools.accumulate(LENGTHS)]
    labels = [torch.arange(a, b - 1) for a, b in itertools.pairwise(starts)]
    batch = MicroBatch(
        input_ids=torch.cat([*ids]),
        position_ids=torch.cat([torch.arange(length) for length in LENGTHS]),
        cu_seqlens=torch.tensor(starts, dtype=torch.int32),
        pixels=torch.zeros(0, 3, 1, 1, dtype=torch.uint8),
        image_slots=torch.arange(0),
        feature_index=torch.arange(0),
        label_positions=torch.cat(labels),
        targets=torch.cat([part[1:] for part in ids]),
        weights=torch.ones(sum(LENGTHS) - len(LENGTHS)),
    )
    part = TrainablePart(nn.Identity(), model)
    features = torch.zeros(1, 0, model.get_input_embeddings().weight.shape[1])
    part(batch, features).loss.backward()
    everywhere = replace(
        batch,
        label_positions=torch.arange(sum(LENGTHS)),
        targets=batch.input_ids,
        weights=torch.zeros(sum(LENGTHS)),
    )
    with torch.no_grad():
        logits = part(everywhere, features).logits
    return _outcome(model, logits)


def _outcome(model: nn.Module, logits: Tensor) -> _Outcome:
    parameters = [*model.parameters()]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return _Outcome(
        logits=logits,
        gradients=torch.cat([gradient.flatten() for gradient in gradients]),
        sizes=[parameter.numel() for parameter in parameters],
    )


def _small_model(config: PreTrainedConfig) -> Any:
    """A small model in fp32 with transformers' eager attention, its weights drawn wide enough that
    every token matters.
    """
    model: Any = None
    for attempt in (_narrowed, _with_few_layers):
        try:
            model = _built(type(config).from_dict(attempt(config)))
            break
        except Exception as error:  # whatever transformers raises for a configuration
            problem = error
    if model is None:
        raise problem
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                width = parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2 * width)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def _built(config: PreTrainedConfig) -> Any:
    """A model that runs. Raises ValueError for one that is too large to be tried, and whatever
    transformers raises.
    """
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if (count := sum(parameter.numel() for parameter in shape.parameters())) > MAX_PARAMETERS:
        raise ValueError(f"a few layers of it have {count} parameters already")
    model: Any = AutoModelForCausalLM.from_config(
        config, trust_remote_code=False, attn_implementation="eager", dtype=torch.float32
    )
    model.eval()
    with torch.no_grad():
        model(input_ids=_ids()[0][None], use_cache=False)
    return model


def _with_few_layers(config: PreTrainedConfig) -> dict[str, Any]:
    """The configuration with one layer of each kind, few tokens and narrow windows."""
    values = copy.deepcopy(config.to_dict())
    layers = _name(config, "num_hidden_layers")
    total = int(values[layers])
    lists = [
        name for name, value in values.items() if isinstance(value, list) and len(value) == total
    ]
    kinds: dict[str, int] = {}
    for index in range(total):
        kinds.setdefault(repr([values[name][index] for name in lists]), index)
    kept = [*kinds.values()] if len(kinds) > 1 else [*range(min(total, LAYERS))]
    for name in lists:
        values[name] = [values[name][index] for index in kept]
    values[layers] = len(kept)
    for name, value in values.items():
        if type(value) is int and value > WINDOW and _is_window(name):
            values[name] = WINDOW
    values[_name(config, "vocab_size")] = VOCABULARY
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if values.get(name) is not None:
            values[name] = 0
    values["tie_word_embeddings"] = config.tie_word_embeddings
    return values


def _narrowed(config: PreTrainedConfig) -> dict[str, Any]:
    """The same with few heads of their own size, and everything else as narrow."""
    values = _with_few_layers(config)
    hidden, heads = (_name(config, name) for name in ("hidden_size", "num_attention_heads"))
    kv_heads = next(
        (name for name in ("num_key_value_heads", "num_kv_heads") if values.get(name)), heads
    )
    group = max(1, values[heads] // values[kv_heads])
    few = min(values[kv_heads], HEADS) * min(group, HEADS)
    values[hidden] = values[hidden] // values[heads] * few
    if kv_heads != heads:
        values[kv_heads] = min(values[kv_heads], HEADS)
    values[heads] = few
    for name, value in values.items():
        inner = name.endswith(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"))
        if type(value) is int and inner:
            values[name] = min(value, 2 * values[hidden])
    return values


def _is_window(name: str) -> bool:
    return ("window" in name or "chunk" in name) and "layer" not in name and "pattern" not in name


def _name(config: PreTrainedConfig, field: str) -> str:
    """What a configuration class calls a field."""
    return str(config.attribute_map.get(field, field))
