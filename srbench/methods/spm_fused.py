"""SPM (2312.16145) as a plain checkpoint: the adapters added to the weights at full strength, without the gate."""

from __future__ import annotations

from typing import Any, ClassVar

from srbench.catalog.specs import ConceptSpec
from srbench.methods import adapters, base, denoising, finetune, spm

METHOD = {
    "name": "spm-fused",
    "version": 1,
    "kind": "weight",
    "title": "SPM's adapters added to the weights: a plain checkpoint, without the gate",
    "equation": [
        "L = || e'(x_t, c_e) - [e(c_0) - eta (e(c_e) - e(c_0))] ||^2",
        "    + anchor_weight || e'(x_t, c_k) - e(x_t, c_k) ||^2",
        "W' = W + s B A, s = 1 / rank",
    ],
    "paper": "2312.16145",
    "families": ["pocket", "sd"],
    "presets": {"spm-fused": {}},
    # Not fitted on `dev` rows: those of `spm`.
    "fitted": {
        "pocket": {
            "spm-fused": {
                "object": {"steps": 16, "iterations": 400, "batch": 2, "lr": 1e-3, "warmup": 40, "anchor_weight": 100.0},
                "style": {"steps": 16, "iterations": 400, "batch": 2, "lr": 1e-3, "warmup": 40, "anchor_weight": 100.0},
            },
        },
    },
    "unfitted": ["spm-fused"],
    "decides": False,
    "reads_concept": True,
}


@base.method(METHOD)
class SpmFused:
    """Learns SPM's adapters and adds them."""

    Options: ClassVar[type[base.Options]] = spm.Training

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Weights with the adapters added.

        Raises `UsageError` for a backbone without a U-Net, `CellError` where training diverges or changes nothing.
        """
        unet = denoising.frozen(backbone.pipeline, "spm-fused")
        texts = spm.texts_of(concept, backbone.family, options)
        own, losses = spm.learn(backbone, texts, options, tell)
        before, after = adapters.fused(unet, own)
        tensors = finetune.changed(before, after, "spm-fused")
        card = {"names": len(texts.phrases), "phrases": texts.phrases, "loss_curve": finetune.curve(losses)}
        trained = {"trained_parameters": sum(each.numel() for each in adapters.parameters(own))}
        return base.Edit({"unet": tensors}, card | trained | finetune.edit_card(before, tensors))
