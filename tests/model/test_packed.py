"""The packed row: equal to samples one by one, no leak between segments, lm_head on supervised
positions only.
"""

import pytest
import torch

from tests.support.models import VOCABULARY, small_model

LENGTHS = (7, 1, 12)


def _row(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    boundaries = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
    return {
        "input_ids": ids,
        "position_ids": torch.cat([torch.arange(n) for n in LENGTHS]),
        "cu_seq_lens": boundaries,
        "pixel_values": torch.zeros(1, 3, 28, 28),
        "image_slots": torch.zeros(0, dtype=torch.long),
        "feature_index": torch.zeros(0, dtype=torch.long),
        "supervised": torch.arange(sum(LENGTHS)),
    }


def _ids() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_a_row_equals_its_samples_one_by_one(kv_heads: int) -> None:
    model = small_model(kv_heads=kv_heads).eval()
    ids = _ids()
    with torch.no_grad():
        packed = model(**_row(ids)).logits
        with model.stock_attention("eager"):
            singles = [
                model.language_model(input_ids=part[None]).logits[0] for part in ids.split(LENGTHS)
            ]
    torch.testing.assert_close(packed, torch.cat(singles), atol=1e-5, rtol=0)


def test_changing_one_segment_leaves_the_others_bitwise_unchanged() -> None:
    model = small_model().eval()
    ids = _ids()
    changed = ids.clone()
    changed[: LENGTHS[0]] = (changed[: LENGTHS[0]] + 1) % VOCABULARY
    with torch.no_grad():
        before, after = model(**_row(ids)).logits, model(**_row(changed)).logits
    assert not torch.equal(before[: LENGTHS[0]], after[: LENGTHS[0]])
    assert torch.equal(before[LENGTHS[0] :], after[LENGTHS[0] :])


def test_missing_boundaries_are_an_error() -> None:
    model = small_model().train()
    row = _row(_ids())
    with pytest.raises(RuntimeError, match="cu_seq_lens"):
        model(**{**row, "cu_seq_lens": None})
    with pytest.raises(RuntimeError, match="cu_seq_lens"):
        model.language_model(input_ids=row["input_ids"][None], use_cache=False)


@pytest.mark.parametrize("positions", [[2, 9], []])
def test_only_supervised_positions_reach_lm_head(positions: list[int]) -> None:
    model = small_model().train()
    seen = []
    model.language_model.lm_head.register_forward_hook(
        lambda _m, inputs, _o: seen.append(inputs[0].shape)
    )
    row = _row(_ids())
    supervised = torch.tensor(positions, dtype=torch.long)
    output = model(
        **{
            **row,
            "supervised": supervised,
            "targets": supervised % VOCABULARY,
            "weights": torch.ones(len(positions)),
        }
    )
    assert [shape[1] for shape in seen] == [len(positions)]
    output.loss.backward()
    assert model.projector[0].weight.grad is not None and not model.projector[0].weight.grad.any()


def test_the_tower_stays_in_eval_mode() -> None:
    model = small_model().train()
    assert model.training and not any(module.training for module in model.vision_tower.modules())
