"""Other beginnings than noise: their forms, the latents that they begin from, and that fewer steps run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from srbench.catalog.specs import Row, RowFile
from srbench.engine.batches import groups, recipe_of
from srbench.engine.plan import plan
from srbench.engine.run import execute
from srbench.engine.starts import Begun, BegunScheduler, Start, Starts, beginning, key_of, middle, start_of
from srbench.errors import CellError, UsageError
from srbench.methods import denoising
from srbench.results.keys import ImageSpec
from srbench.results.store import Store
from srbench.testing.tiny import tiny_pipeline


@pytest.mark.parametrize(("text", "start", "first"), [
    ("image:0.6", Start("image", 0.6), 4), ("image:.25", Start("image", 0.25), 8), ("image:1", Start("image", 1.0), 0),
    ("half:8", Start("half", step=8), 8), ("half:0", Start("half", step=0), 0), ("inverted", Start("inverted"), 0),
    ("inpaint", Start("inpaint"), 0),
])  # fmt: skip
def test_forms_and_the_step_that_is_run_first(text: str, start: Start, first: int) -> None:
    assert start_of(text) == start
    assert start_of(text).first(10) == first


BAD = ("", "image", "image:0", "image:1.5", "image:-1", "image:nan", "half:-1", "half:x", "noise", "inpaint:2")


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_beginning_is_one_line(text: str) -> None:
    with pytest.raises(UsageError):
        start_of(text)


def test_a_beginning_after_the_last_step_is_refused() -> None:
    with pytest.raises(UsageError, match="leaves none to run"):
        start_of("half:16").first(16)
    with pytest.raises(UsageError, match="leaves none to run"):
        start_of("image:0.01").first(10)


def test_the_middle_is_half_as_high_and_wide() -> None:
    assert int(middle(8, 8).sum()) == 16
    assert bool(middle(8, 8)[2:6, 2:6].all())


# --- latents ---------------------------------------------------------------------------------------------------------------


def spec(start: str, prompt: str = "a box", seed: int = 3, steps: int = 5, guidance: float = 3.0, **more: Any) -> ImageSpec:
    begins = key_of(start, more.pop("pictured", prompt), seed, more.pop("file", None)) if start else ""
    return ImageSpec(
        backbone_sha="", checkpoint_sha="", method="none", method_version=1, options="", artifact_sha="", concept_sha="",
        prompt=prompt, negative_prompt="", seed=seed, steps=steps, guidance=guidance, eta=0.0, guidance_rescale=0.0,
        clip_skip=None, scheduler="", width=8, height=8, dtype="fp32", start=begins,
    )


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline(spread=20.0)


def begun(pipeline: Any, *specs: ImageSpec) -> list[Begun]:
    starts = Starts(pipeline)
    starts.make(specs)
    return starts.of(specs)


def finished(pipeline: Any, one: Begun, guidance: float, prompt: str = "a box") -> torch.Tensor:
    """Clean latents (C, h, w) after the steps that are left."""
    rng = torch.Generator().manual_seed(0)
    with beginning(pipeline, [one], [rng]):
        embeds, negative = (pipeline.encode_prompt(text, "cpu", 1, False)[0] for text in (prompt, ""))
        out = pipeline(
            prompt_embeds=embeds, negative_prompt_embeds=negative, latents=one.latents[None], num_inference_steps=5,
            guidance_scale=guidance, height=8, width=8, output_type="latent", generator=[rng],
        ).images
    return out[0]


def test_half_denoised_latents_end_where_the_untouched_backbone_ends(pipeline: Any) -> None:
    draws = denoising.Denoising(pipeline, 5, 3.0)
    whole = draws.walk(pipeline.unet, denoising.encoded(pipeline, ["a box"]), torch.Generator().manual_seed(3))[0]
    for step in (0, 2, 4):
        (one,) = begun(pipeline, spec(f"half:{step}"))
        assert one.first == step
        assert torch.allclose(finished(pipeline, one, 3.0), whole, atol=1e-4)


def test_image_to_image_begins_from_the_noised_picture(pipeline: Any) -> None:
    (whole,) = begun(pipeline, spec("image:1"))
    (part,) = begun(pipeline, spec("image:0.4"))
    assert (whole.first, part.first) == (0, 3)
    draws = denoising.Denoising(pipeline, 5, 3.0)
    picture = draws.walk(pipeline.unet, denoising.encoded(pipeline, ["a box"]), torch.Generator().manual_seed(3))[0]
    t = draws.schedule().timesteps[3]
    share = float(pipeline.scheduler.alphas_cumprod[t])
    assert torch.allclose(part.latents, share**0.5 * picture + (1 - share) ** 0.5 * whole.latents, atol=1e-5)


def test_the_noise_over_a_picture_is_not_the_one_it_was_drawn_from(pipeline: Any) -> None:
    (one,) = begun(pipeline, spec("image:1"))
    assert not torch.allclose(one.latents, torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(3)))


def test_inverted_noise_leads_back_to_the_picture(pipeline: Any) -> None:
    """Nearer than noise of its own does, without guidance and under the empty prompt; the more steps, the nearer."""
    errors = []
    for steps in (10, 100):
        starts = Starts(pipeline)
        own = spec("inverted", steps=steps)
        starts.make([own])
        draws = denoising.Denoising(pipeline, steps, 1.0)
        picture = starts._picture(denoising.Denoising(pipeline, steps, 3.0), json.loads(own.start), own)
        (one,) = starts.of([own])
        back = draws.walk(pipeline.unet, draws.empty, torch.Generator(), x=one.latents[None])[0]
        errors.append(float((back - picture).norm() / picture.norm()))
    assert errors[1] < errors[0]
    assert errors[1] < 0.2


def test_around_a_hole_the_picture_stays(pipeline: Any) -> None:
    (one,) = begun(pipeline, spec("inpaint"))
    assert one.picture is not None
    out = finished(pipeline, one, 3.0)
    hole = middle(4, 4)
    assert torch.allclose(out[:, ~hole], one.picture[:, ~hole], atol=1e-5)
    assert not torch.allclose(out[:, hole], one.picture[:, hole], atol=1e-2)


def test_the_pipeline_is_as_before_also_after_an_error(pipeline: Any) -> None:
    own = pipeline.scheduler
    (one,) = begun(pipeline, spec("half:2"))

    def broken() -> None:
        with beginning(pipeline, [one], []):
            assert isinstance(pipeline.scheduler, BegunScheduler)
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert pipeline.scheduler is own


def test_a_batch_begins_at_one_step(pipeline: Any) -> None:
    mixed = begun(pipeline, spec("half:2"), spec("half:3"))
    with pytest.raises(CellError, match="several steps"), beginning(pipeline, mixed, []):
        pass


def test_the_users_picture_is_known_by_what_is_in_it(pipeline: Any, tmp_path: Path) -> None:
    paths = []
    for name, shade in (("a.png", 10), ("b.png", 10), ("c.png", 200)):
        paths.append(tmp_path / name)
        Image.new("RGB", (12, 9), (shade, 5, 80)).save(paths[-1])
    own = [spec("image:0.4", file=path) for path in paths]
    assert own[0].key() == own[1].key() != own[2].key()
    starts = Starts(pipeline)
    starts.know(paths)
    starts.make(own)
    one, same, other = starts.of(own)
    assert torch.equal(one.latents, same.latents)
    assert not torch.allclose(one.latents, other.latents)
    with pytest.raises(UsageError, match="cannot be read"):
        spec("image:0.4", file=tmp_path / "none.png")


# --- keys and runs ---------------------------------------------------------------------------------------------------------


def test_noise_has_the_old_key_and_every_beginning_one_of_its_own() -> None:
    plain = spec("")
    assert plain.key() == replace(plain, start="").key()
    keys = [spec(start).key() for start in ("image:0.6", "image:0.8", "half:2", "inverted", "inpaint")]
    assert len({plain.key(), *keys}) == 6
    assert spec("half:2", pictured="a crate").key() != spec("half:2").key()


def world_with(world: Any, *starts: str, **fields: Any) -> list[Any]:
    rows = tuple(
        Row(
            id=f"s{i}", kind="forget", category="noun", prompt=f"a box {word}", seed=i, objects=("box",), style="a", start=start,
            **fields,
        )
        for i, (start, word) in enumerate((start, word) for start in starts for word in ("red", "blue"))
    )
    world.rows = RowFile(meta={}, rows=rows)
    return plan(world.request(), world.backbone())


def test_images_of_one_beginning_share_a_batch_whatever_their_pictures(world: Any) -> None:
    cells = world_with(world, "half:1", "inpaint")
    (cell,) = [cell for cell in cells if cell.method == "push"]
    images = [row.image for row in cell.rows]
    assert [len(group) for group in groups(images)] == [2, 2]
    assert recipe_of(images[0].spec) == recipe_of(images[1].spec) != recipe_of(images[2].spec)


def test_a_run_draws_them_with_every_method_and_fewer_steps_are_told(world: Any) -> None:
    cells = world_with(world, "half:1", "inpaint")
    backbone = world.backbone()
    done = execute(world.request(), backbone, cells, Store(world.out / "store", world.lines.append), world)
    assert done.exit_code == 0
    store = Store(world.out / "store", world.lines.append)
    none, push = (next(cell for cell in cells if cell.method == method) for method in ("none", "push"))
    for a, b in zip(none.rows, push.rows, strict=True):
        assert not np.array_equal(store.pixels(a.image.key), store.pixels(b.image.key))
    steps = [store.images[row.image.key]["trace"]["redirected_steps"] for row in push.rows]
    whole = cells[0].rows[0].image.spec.steps
    assert steps == [whole - 1, whole - 1, whole, whole]


def test_a_row_whose_picture_is_gone_is_refused_before_anything_is_drawn(world: Any) -> None:
    with pytest.raises(UsageError, match="cannot be read as a picture"):
        world_with(world, "image:0.5", picture="nowhere.png")


def test_a_beginning_that_leaves_no_step_is_refused(world: Any) -> None:
    with pytest.raises(UsageError, match="leaves none to run"):
        world_with(world, "half:100")
