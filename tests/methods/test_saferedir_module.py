"""The network: released sizes and names, shapes, and what the shift does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srbench.methods.saferedir.module import SafeRedir, Sizes, shift, timestep_embedding
from srbench.methods.saferedir.train import Settings

TINY = Sizes(
    prompt_width=8, tokens=5, latent_channels=3, latent_widths=(4, 8), latent_feature=6, timestep_width=10, timestep_feature=4,
    token_hidden=8, rank=2, classifier_hidden=8, alpha_hidden=8, mask_hidden=8, heads=2,
)
RELEASED = {
    "latent_encoder": 1_321_024, "t_encoder": 20_672, "cross_attn": 8_865_024, "classifier": 541_442, "token_proj": 1_082_624,
    "delta_head": 24_577, "gate_linear": 769, "mask_predictor": 2_461_185, "alpha_predictor": 197_121,
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_released_sizes() -> None:
    module = SafeRedir()
    assert {name: count(child) for name, child in module.named_children()} == RELEASED
    assert module.pos_embed.shape == (1, 77, 768)
    assert count(module) == 14_573_574


def test_released_names() -> None:
    names = set(SafeRedir(TINY).state_dict())
    assert {
        "latent_encoder.0.conv.0.weight", "latent_encoder.0.conv.4.running_var", "latent_encoder.0.downsample.weight",
        "t_encoder.0.weight", "t_encoder.2.bias", "cross_attn.heads.1.query.weight", "cross_attn.heads.0.norm.weight",
        "cross_attn.fuse.0.weight", "pos_embed", "classifier.3.weight", "token_proj.2.weight", "delta_head.down.weight",
        "delta_head.scale", "gate_linear.weight", "mask_predictor.attn.in_proj_weight", "mask_predictor.predictor.3.bias",
        "alpha_predictor.net.2.weight",
    } <= names


def test_token_delta_keeps_names_and_shapes() -> None:
    plain, tokens = SafeRedir(TINY), SafeRedir(TINY, token_delta=True)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in tokens.state_dict().items()}


def test_shapes_and_ranges() -> None:
    module = SafeRedir(TINY).eval()
    logits, delta, mask, alpha = module(torch.randn(2, 3, 4, 4), torch.randn(2, 5, 8), torch.tensor([3.0, 900.0]))
    assert (logits.shape, delta.shape, mask.shape, alpha.shape) == ((2, 2), (2, 5, 8), (2, 5), (2, 5))
    for part in (mask, alpha):
        assert ((part > 0) & (part < 1)).all()


def test_direction_per_token_only_with_token_delta() -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(1, 3, 4, 4), torch.randn(1, 5, 8), torch.tensor([5.0]))
    unit = nn.functional.normalize(SafeRedir(TINY).eval()(*inputs)[1], dim=-1)
    assert torch.allclose(unit, unit[:, :1].expand_as(unit), atol=1e-5)
    unit = nn.functional.normalize(SafeRedir(TINY, token_delta=True).eval()(*inputs)[1], dim=-1)
    assert (unit - unit[:, :1]).abs().max() > 0.1


def test_inputs_left_out_do_not_matter() -> None:
    module, prompt = SafeRedir(TINY).eval(), torch.randn(2, 5, 8)
    t = torch.tensor([1.0, 500.0])
    first, second = (module(None, prompt, None)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(module(None, prompt, t)[0], first)
    assert not torch.equal(module(torch.randn(2, 3, 4, 4), prompt, t)[0], module(None, prompt, t)[0])


def test_shift_length_and_mask() -> None:
    prompt, delta = torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    mask, alpha = torch.tensor([[1.0, 1, 0, 0.5, 1]]), torch.full((1, 5), 0.25)
    moved = shift(prompt, delta, mask, alpha, 2.0)
    assert torch.allclose(moved.norm(dim=-1), 0.5 * mask * prompt.norm(dim=-1), atol=1e-6)
    assert torch.equal(shift(prompt, delta, None, alpha, 2.0), shift(prompt, delta, torch.ones(1, 5), alpha, 2.0))


def test_timestep_embedding_is_sine_then_cosine() -> None:
    embedded = timestep_embedding(torch.tensor([0.0, 2.0]), 4)
    assert torch.equal(embedded[0], torch.tensor([0.0, 0, 1, 1]))
    assert embedded[1, 0] == pytest.approx(0.9093, abs=1e-4)
    assert embedded[1, 1] == pytest.approx(0.02, abs=1e-4)


def test_sizes_and_settings_refuse_unknown_keys() -> None:
    for spec in (Sizes, Settings):
        with pytest.raises(ValueError, match="Extra inputs"):
            spec.model_validate({"wdith": 3})
