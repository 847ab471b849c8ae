"""A model asked about a video: what it is given, how long that may be, and what is refused."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from densekit.errors import DataError
from densekit.exchange.official.importing import import_folder
from densekit.exchange.pipeline import Pipeline, load_pipeline
from densekit.spec.imported import ImportRequest
from densekit.spec.video import VideoSettings

POOLED, WHOLE = VideoSettings(), VideoSettings(pooled=False)


@pytest.fixture(scope="module")
def pipeline(golden_exchange: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    place = tmp_path_factory.mktemp("imported") / "stage2"
    folder = golden_exchange / "given" / "clip_dci" / "stage2"
    search = (golden_exchange / "base",)
    import_folder(ImportRequest(folder=folder, to=place, search=search))
    return load_pipeline(place)


def made_frames(count: int) -> list[Image.Image]:
    return [Image.effect_noise((70, 50), 40 + 30 * n).convert("RGB") for n in range(count)]


@pytest.mark.parametrize("settings", [POOLED, WHOLE])
def test_prompt_is_its_plain_reference(pipeline: Pipeline, settings: VideoSettings) -> None:
    frames = made_frames(3)
    prompt = pipeline.video_question("what happens?", frames, settings)
    model = pipeline.model
    assert prompt.pixels is not None and len(prompt.pixels) == prompt.frames == 3
    views = [pipeline.question("x", frame).pixels for frame in frames]
    assert torch.equal(prompt.pixels, torch.cat([view for view in views if view is not None]))
    generated = pipeline.answers([prompt], max_new_tokens=4)
    with torch.no_grad():
        tokens = model.projector(model.encode_images(prompt.pixels))
        if settings.pooled:
            half = tokens.shape[1] // 2
            tokens = tokens[:, : 2 * half].unflatten(1, (half, 2)).amax(2)
        (tag,) = (prompt.ids == model.config.image_token_id).nonzero().flatten().tolist()
        embed = model.get_input_embeddings()
        before, behind = embed(prompt.ids[:tag]), embed(prompt.ids[tag + 1 :])
        whole = torch.cat([before, tokens.flatten(0, 1), behind])
        assert len(whole) == prompt.tokens
        with model.stock_attention():
            ids = model.language_model.generate(
                inputs_embeds=whole[None],
                attention_mask=torch.ones(1, len(whole), dtype=torch.long),
                max_new_tokens=4,
                do_sample=False,
                eos_token_id=[*pipeline.encoder.end_tokens],
                pad_token_id=0,
            )
    assert ids[0].tolist() == [*generated[0].ids]


def test_a_batch_of_videos_images_and_text(pipeline: Pipeline) -> None:
    prompts = [
        pipeline.video_question("what happens?", made_frames(2), POOLED),
        pipeline.question("what is it?", made_frames(1)[0]),
        pipeline.question("how many?", None),
        pipeline.video_question("and here?", made_frames(5), POOLED),
    ]
    together = pipeline.answers(prompts, max_new_tokens=5)
    alone = [pipeline.answers([prompt], max_new_tokens=5)[0] for prompt in prompts]
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]


def test_a_video_may_be_as_long_as_the_models_positions(pipeline: Pipeline) -> None:
    """An image no longer than data.max_length, as in the official code."""
    longest = pipeline.conversation.max_length
    positions = pipeline.model.config.text_config.max_position_embeddings
    of_frame = pipeline.model.config.image_layout.max_tokens
    count = longest // of_frame + 2
    assert longest < count * of_frame < positions
    frames = made_frames(1) * count
    prompt = pipeline.video_question("what?", frames, WHOLE)
    assert prompt.tokens > longest
    assert pipeline.answers([prompt], max_new_tokens=2)[0].ids
    frames = made_frames(1) * (positions // of_frame + 1)
    too_long = pipeline.video_question("what?", frames, WHOLE)
    with pytest.raises(DataError, match=f"{too_long.tokens:,} tokens.*{positions:,} positions"):
        pipeline.answers([too_long], max_new_tokens=2)


def test_a_question_is_about_one_video(pipeline: Pipeline) -> None:
    with pytest.raises(DataError, match="<image>"):
        pipeline.video_question("<image> and <image>", made_frames(2), POOLED)


def test_a_model_of_tiles_is_not_asked(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from densekit.spec.anyres import AnyRes

    anyres = AnyRes(pinpoints=((56, 112),), merge="flat")
    tiles = pipeline.conversation.model_copy(update={"anyres": anyres})
    with pytest.raises(DataError, match="several tiles per image"):
        replace(pipeline, conversation=tiles).video_question("what?", made_frames(2), POOLED)
