"""Settings of `eofm pretrain`: the objective. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MethodConfig:
    """The SoftCon objective: hard InfoNCE term plus soft multi-label term; and its controls.

    Args:
        objective: `softcon`; or a control: `moco`, the hard term alone; `soft`, the soft term
            alone; `shuffled`, SoftCon with the label sets exchanged between scenes at random, each
            scene keeping one through the run; `multilabel`, the classes predicted by binary cross
            entropy from the embedding, with the same views and masks and without contrast. From
            scratch: leave model.weights out.
        tau: Temperature of the hard term.
        hard_exclude: Which images the hard term does not push apart: `same-location`, other seasons
            and windows of a place; `same-labels`, images with the same classes.
        queue: How many keys of earlier steps are negatives too, as in MoCo-v2; a multiple of
            optim.batch, 0 for none.
        soft_tau: Temperature of the soft term.
        soft_weight: Weight λ of the soft term; 0 leaves MoCo-v3.
        soft_unit: What λ counts: the soft term as it stands (`plain`), or in units that give both
            terms gradients of the same size before anything is learned (`gradient`), so that one λ
            means the same for all forms; with nine classes the unit is 3 to 5 (mse-shifted: 20).
        soft_form: Binary cross entropy (bce), cross entropy (ce), or mean squared error of the
            cosine (mse) or of (cosine + 1) / 2 (mse-shifted).
        soft_bias: Bias of bce: `learned` or `fixed` from the logit of the mean similarity, or zero.
        soft_scale: Scale of bce, 1 / soft_tau: fixed, or learned from there, up to 100.
        soft_neighbours: Only the so many most similar images of each enter the soft term; 0: all.
        soft_diagonal: Similarity of an image with itself where the views are two seasons: that of
            their labels, or `one`.
        similarity: Similarity of two multi-label vectors: cosine, jaccard, `idf` (cosine in which
            rare classes weigh more), or `fraction` (cosine of the shares that classes cover, if the
            store was packed with maps).
        mask_ratio: Share of the student's patches that are hidden.
        mask: `tokens` drops hidden patches, which saves time and memory; networks without tokens
            cannot. `pixels` fills them: patches of a transformer, blocks of a ResNet's final stride
            (32 pixels). The statistics of its batch norms are then taken anew, of whole images,
            before the student is exported.
        mask_fill: What hidden pixels become: the mean of each band, or zero.
        symmetric: Use both directions (student of view 1 with teacher of view 2, and back).
        momentum: Teacher momentum at the start; a cosine takes it to 1.
        head: Projector and predictor: of MoCo-v3 for transformers (`moco3`: 3 + 2 layers), of
            MoCo-v3 for ResNets (`moco3-resnet`: 2 + 2), or of MoCo-v2 (`moco2`: 2 layers without
            norms, no predictor). `auto` is one of the first two.
        hidden: Hidden width of projector and predictor.
        dim: Width of the contrastive embedding.
        head_norm: Normalisation inside the heads.
    """

    objective: Literal["softcon", "moco", "soft", "shuffled", "multilabel"] = "softcon"
    tau: float = 0.2
    hard_exclude: Literal["none", "same-location", "same-labels"] = "none"
    queue: int = 0
    soft_tau: float = 0.2
    soft_weight: float = 10.0
    soft_unit: Literal["plain", "gradient"] = "plain"
    soft_form: Literal["bce", "ce", "mse", "mse-shifted"] = "bce"
    soft_bias: Literal["learned", "fixed", "zero"] = "learned"
    soft_scale: Literal["fixed", "learned"] = "fixed"
    soft_neighbours: int = 0
    soft_diagonal: Literal["labels", "one"] = "labels"
    similarity: Literal["cosine", "jaccard", "idf", "fraction"] = "cosine"
    mask_ratio: float = 0.5
    mask: Literal["tokens", "pixels"] = "tokens"
    mask_fill: Literal["mean", "zero"] = "mean"
    symmetric: bool = True
    momentum: float = 0.99
    head: Literal["auto", "moco3", "moco3-resnet", "moco2"] = "auto"
    hidden: int = 512
    dim: int = 128
    head_norm: Literal["bn", "ln", "none"] = "bn"
