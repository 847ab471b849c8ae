"""LoRA: the recorded-LoRA check against a training written with stock transformers and peft, and
what is saved.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM, get_cosine_schedule_with_warmup

from densekit.errors import DataError
from densekit.model.preprocess import normalise
from densekit.parity.case import Recording
from densekit.parity.compare import run_case
from densekit.parity.lora import check_lora
from densekit.parity.stage import pad
from densekit.spec.math import Lora
from densekit.spec.roots import Roots
from densekit.spec.types import IGNORE_INDEX
from densekit.train.initial_state import load_base
from densekit.train.lora import add_lora, initial_lora, load_lora, lora_weights, save_lora

LORA = Lora(r=4, alpha=8)
STEPS = 6


@pytest.fixture(scope="module")
def recorded_lora(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of the recordings, written by stock code: padded batches, stock
    attention, peft.
    """
    root = tmp_path_factory.mktemp("lora")
    for name in ("data", "models", "tokens.json"):
        (root / name).symlink_to(golden / name)
    case = root / "clip_dci"
    case.mkdir()
    argv = json.loads((golden / "clip_dci" / "stage2.json").read_text())["argv"]
    argv[argv.index("--max_steps") + 1] = str(STEPS)
    argv += ["--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8", "--lora_dropout", "0.0"]
    argv += ["--mm_projector_lr", "2e-4"]
    (case / "lora.json").write_text(json.dumps({"argv": argv, "steps": []}))
    recording = Recording.read(root, case / "lora.json")
    projector = load_file(golden / "clip_dci" / "projector_after_stage1.safetensors")
    save_file(projector, case / "lora_projector_init.safetensors")
    steps = _stock_training(recording, projector, case)
    (case / "lora.json").write_text(json.dumps({"argv": argv, "steps": steps}))
    return root


def _stock_training(
    recording: Recording, projector: dict[str, torch.Tensor], case: Path
) -> list[dict]:
    torch.manual_seed(5)
    stock = LlamaForCausalLM.from_pretrained(
        recording.root / "models" / "llm_tiny", dtype=torch.float32
    )
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    peft = get_peft_model(
        stock,
        LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, target_modules=names, task_type="CAUSAL_LM"
        ),
    )
    adapters = {name: p for name, p in peft.named_parameters() if "lora_" in name}
    save_file(
        {name: p.detach().clone() for name, p in adapters.items()}, case / "lora_init.safetensors"
    )
    mlp = nn.Sequential(nn.Linear(96, 64), nn.GELU(), nn.Linear(64, 64))
    mlp.load_state_dict(projector)
    # The adapters' first values matter only through the model that reads samples; its own are not
    # used.
    model = recording.model(
        {f"connector.{n}": v for n, v in projector.items()} | _any_lora(recording)
    )
    reader = recording.reader(recording.root / "data" / "stage2_train.json", model)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(adapters.values()), "lr": 1e-3},
            {"params": list(mlp.parameters()), "lr": 2e-4},
        ],
        weight_decay=0.0,
    )
    scheduler = get_cosine_schedule_with_warmup(optimizer, math.ceil(STEPS * 0.03), STEPS)
    records = []
    for step in recording.steps(reader.samples)[:STEPS]:
        indices = [int(i) for i in step.groups[0]]
        loss = _padded_loss(peft, mlp, model, reader, indices)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_([*adapters.values(), *mlp.parameters()], 1.0)
        records.append(
            {
                "loss": loss.item(),
                "lr": [group["lr"] for group in optimizer.param_groups],
                "grad_norm_preclip": norm.item(),
                "ids": [reader.samples[i].entry_id for i in indices],
            }
        )
        optimizer.step()
        scheduler.step()
    save_file({n: p.detach().clone() for n, p in adapters.items()}, case / "lora_final.safetensors")
    save_file(
        {n: p.detach().clone() for n, p in mlp.state_dict().items()},
        case / "lora_projector_final.safetensors",
    )
    return records


def _any_lora(recording: Recording) -> dict[str, torch.Tensor]:
    return {
        f"lora.{name}": value
        for name, value in initial_lora(load_base(recording.math, Roots()), 0).items()
    }


def _padded_loss(
    peft: nn.Module, mlp: nn.Module, model: nn.Module, reader: object, indices: list[int]
) -> torch.Tensor:
    rows, labels = [], []
    table = torch.from_numpy(reader.processor.lookup_table())
    for index in indices:
        sequence, _ = reader.sequence(index)
        ids = torch.from_numpy(sequence.input_ids)
        embeddings = peft.get_input_embeddings()(ids.clamp(min=0))
        image = reader.image(index)
        if image is not None:
            features = mlp(
                model.encode_images(normalise(torch.from_numpy(image.pixels)[None], table))
            )[0]
            slots = ids < 0
            embeddings = embeddings.masked_scatter(slots[:, None], features[: int(slots.sum())])
        rows.append(embeddings)
        labels.append(sequence.labels)
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = nn.utils.rnn.pad_sequence(
        [torch.ones(len(row)) for row in rows], batch_first=True
    ).long()
    targets = torch.from_numpy(pad(labels, IGNORE_INDEX))
    loss = peft(inputs_embeds=padded, attention_mask=mask, labels=targets).loss
    # As recorded: a text-only batch gives the projector zero gradients, not none, so that AdamW's
    # momentum moves it.
    return loss + 0.0 * mlp(torch.zeros(1, 96)).sum()


def test_a_recorded_lora_training_is_reproduced(recorded_lora: Path) -> None:
    path = recorded_lora / "clip_dci" / "lora.json"
    values = run_case(lambda quantities: check_lora(recorded_lora, path, quantities))
    assert not {name: value for name, value in values.items() if not value["ok"]}
    assert {
        "order",
        "curve_loss",
        "curve_grad_norm",
        "curve_lr",
        "final_lora",
        "final_weights",
    } <= set(values)


@pytest.mark.parametrize(
    "file", ["lora_init", "lora_final", "lora_projector_init", "lora_projector_final"]
)
def test_a_changed_lora_weight_is_noticed(recorded_lora: Path, file: str) -> None:
    path = recorded_lora / "clip_dci" / f"{file}.safetensors"
    kept = path.read_bytes()
    weights = load_file(path)
    name = sorted(weights)[-1]
    weights[name] = weights[name] + 0.05
    save_file(weights, path)
    record = recorded_lora / "clip_dci" / "lora.json"
    values = run_case(lambda quantities: check_lora(recorded_lora, record, quantities))
    path.write_bytes(kept)
    assert not all(value["ok"] for value in values.values())


def test_saved_adapters_are_what_peft_loads(golden: Path, tmp_path: Path) -> None:
    recording = Recording.read(golden, golden / "clip_dci" / "stage2.json")
    model = _with_lora(recording)
    weights = initial_lora(model, 42)
    generator = torch.Generator().manual_seed(0)
    load_lora(
        model,
        {name: torch.randn(value.shape, generator=generator) for name, value in weights.items()},
    )
    adapters = {name: p for name, p in model.language_model.named_parameters() if "lora_" in name}
    save_lora(model, adapters, LORA, tmp_path / "lora")
    base = AutoModelForCausalLM.from_pretrained(golden / "models" / "llm_tiny", dtype=torch.float32)
    stock = PeftModel.from_pretrained(base, tmp_path / "lora").eval()
    ids = torch.tensor([[1, 15, 200, 31]])
    with torch.no_grad(), model.stock_attention():
        ours = model.language_model.eval()(input_ids=ids).logits
        torch.testing.assert_close(ours, stock(input_ids=ids).logits, atol=1e-5, rtol=0)


def test_initial_adapters_change_nothing_and_depend_on_the_seed_alone(golden: Path) -> None:
    model = _with_lora(Recording.read(golden, golden / "clip_dci" / "stage2.json"))
    first = initial_lora(model, 1)
    torch.manual_seed(77)
    again, other = initial_lora(model, 1), initial_lora(model, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not value.any() for name, value in first.items() if "lora_B" in name)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert set(first) == set(lora_weights(model)) and not any("lm_head" in name for name in first)


def test_adapters_of_another_model_are_refused(golden: Path) -> None:
    model = _with_lora(Recording.read(golden, golden / "clip_dci" / "stage2.json"))
    weights = initial_lora(model, 1)
    name = next(iter(weights))
    with pytest.raises(DataError, match="shapes differ"):
        load_lora(model, {**weights, name: torch.zeros(1, 1)})
    with pytest.raises(DataError, match="do not fit"):
        load_lora(model, {"base_model.model.other.lora_A.weight": weights[name]})


def _with_lora(recording: Recording) -> nn.Module:
    projector = load_file(recording.root / "clip_dci" / "projector_after_stage1.safetensors")
    model = recording.model({f"connector.{name}": value for name, value in projector.items()})
    add_lora(model, LORA)
    return model


def test_init_of_another_connector_is_refused(golden: Path) -> None:
    recording = Recording.read(golden, golden / "clip_dci" / "stage1.json")
    sti = load_file(golden / "clip_sti" / "projector_init.safetensors")
    with pytest.raises(DataError, match="do not fit this model"):
        recording.model({f"connector.{name}": value for name, value in sti.items()})
