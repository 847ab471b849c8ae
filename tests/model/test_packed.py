"""The packed micro-batch: equal to samples one by one, no leak between sequences, lm_head on label
positions only.
"""

import pytest
import torch

from tests.support.models import NO_IMAGE, VOCABULARY, micro_batch, small_model

LENGTHS = (7, 1, 12)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_a_micro_batch_equals_its_samples_one_by_one(kv_heads: int) -> None:
    model = small_model(kv_heads=kv_heads).eval()
    batch = micro_batch(LENGTHS)
    with torch.no_grad():
        packed = model(batch, NO_IMAGE).logits
        with model.stock_attention("eager"):
            singles = [
                model.language_model(input_ids=part[None]).logits[0]
                for part in batch.input_ids.split(LENGTHS)
            ]
    torch.testing.assert_close(packed, torch.cat(singles), atol=1e-5, rtol=0)


def test_changing_one_sequence_leaves_the_others_bitwise_unchanged() -> None:
    model = small_model().eval()
    batch = micro_batch(LENGTHS)
    changed = batch.input_ids.clone()
    changed[: LENGTHS[0]] = (changed[: LENGTHS[0]] + 1) % VOCABULARY
    with torch.no_grad():
        before = model(batch, NO_IMAGE).logits
        after = model(micro_batch(LENGTHS, input_ids=changed), NO_IMAGE).logits
    assert not torch.equal(before[: LENGTHS[0]], after[: LENGTHS[0]])
    assert torch.equal(before[LENGTHS[0] :], after[LENGTHS[0] :])


def test_a_call_without_cu_seqlens_raises() -> None:
    model = small_model().train()
    with pytest.raises(RuntimeError, match="cu_seqlens"):
        model.language_model(input_ids=micro_batch(LENGTHS).input_ids[None], use_cache=False)


@pytest.mark.parametrize("positions", [[2, 9], []])
def test_only_label_positions_reach_lm_head(positions: list[int]) -> None:
    model = small_model().train()
    seen = []
    model.language_model.lm_head.register_forward_hook(
        lambda _m, inputs, _o: seen.append(inputs[0].shape)
    )
    batch = micro_batch(LENGTHS, label_positions=torch.tensor(positions, dtype=torch.long))
    output = model(batch, NO_IMAGE)
    assert [shape[1] for shape in seen] == [len(positions)]
    output.loss.backward()
    gradients = [parameter.grad for parameter in model.projector.parameters()]
    assert gradients and not any(found is None or found.any() for found in gradients)


def test_the_tower_stays_in_eval_mode() -> None:
    model = small_model().train()
    assert model.training and model.trainable_part.training
    assert not any(module.training for module in model.vision_tower.modules())


def test_the_trainable_part_gives_no_weight_a_second_name() -> None:
    model = small_model()
    names = {name.partition(".")[0] for name in model.state_dict()}
    assert names == {"vision_tower", "projector", "language_model"}
    assert {name for name, _ in model.trainable_part.named_parameters()} == {
        name for name, _ in model.named_parameters() if not name.startswith("vision_tower.")
    }


def test_only_cu_seqlens_stays_on_the_cpu() -> None:
    moved = micro_batch(LENGTHS).to(torch.device("meta"))
    tensors = {name: value for name, value in vars(moved).items() if torch.is_tensor(value)}
    devices = {name: tensor.device.type for name, tensor in tensors.items()}
    assert devices.pop("cu_seqlens") == "cpu" and set(devices.values()) == {"meta"}
