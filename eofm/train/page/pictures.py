"""The pictures of the page: patches as colours, neighbours, and similarity matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import matplotlib as mpl
import torch
from torch import Tensor

from eofm.method import LabelSimilarity
from eofm.report.figures import composite_of
from eofm.train.monitoring.measures import label_correlation
from eofm.train.page import markup
from eofm.train.page.scenes import (
    Scenes,
    by_labels,
    nearest,
    patch_colours,
    similarities,
)
from eofm.weights.encoder import Encoder

_ROWS: Final = 6
_NEIGHBOURS: Final = 6
_MATRIX: Final = 96


def patches(encoders: Mapping[str, Encoder], scenes: Scenes) -> str:
    """Return pixels beside the patch tokens of each encoder."""
    rows = scenes.varied(_ROWS)
    imagery = scenes.imagery(rows)
    pixels = scenes.rgb(rows)
    colours = {name: patch_colours(encoder, imagery) for name, encoder in encoders.items()}
    lines = [
        [
            markup.cell(markup.picture(pixels[i], "pixels"), scenes.words(int(row))),
            *(markup.cell(markup.picture(c[i], f"patches, {name}")) for name, c in colours.items()),
        ]
        for i, row in enumerate(rows)
    ]
    composite = composite_of(scenes.store.spec.sensor)
    sizes = ", ".join(f"{name} {c.shape[1]} x {c.shape[2]}" for name, c in colours.items())
    return markup.note(
        f"Pixels: {composite.caption}. Beside them the patch tokens ({sizes}): their first three "
        "principal components, of all scenes shown together, as red, green and blue. Patches of "
        "one colour are alike to the encoder; colours of two encoders cannot be compared."
    ) + markup.sheet(["pixels", *colours], lines)


def neighbours(name: str, encoder: Encoder, scenes: Scenes) -> str:
    """Return held-out scenes, and the training scenes that are nearest to them."""
    rows = scenes.varied(_ROWS)
    found = nearest(encoder, scenes, rows, _NEIGHBOURS)
    lines = []
    for row, near in zip(rows.tolist(), found, strict=True):
        wanted = scenes.words(row)
        cells = [markup.cell(markup.picture(scenes.rgb(rows[rows == row])[0], "query"), wanted)]
        for other in near:
            words = scenes.words(other)
            image = scenes.rgb(scenes.reference[scenes.reference == other])[0]
            same = words == wanted and words != "unlabelled"
            cells.append(markup.cell(markup.picture(image, "neighbour"), words, hit=same))
        lines.append(cells)
    text = (
        f"Left: held-out scenes. Beside each the nearest of {len(scenes.reference)} training "
        f"scenes, by the cosine of the {name}'s embeddings, nearest first; all of other places. "
    )
    if scenes.store.classes:
        text += "A green frame: exactly the same classes."
    return markup.note(text) + markup.sheet(
        ["held-out scene", *(f"nearest {i + 1}" for i in range(_NEIGHBOURS))], lines
    )


def matrices(encoders: Mapping[str, Encoder], scenes: Scenes, kind: LabelSimilarity) -> str:
    """Return the similarity of labels beside that of embeddings; nothing without labels."""
    if not scenes.store.classes:
        return ""
    rows = by_labels(scenes, _MATRIX)
    truth, cosines = similarities(encoders, scenes, rows, kind)
    figures = [_matrix(f"labels ({kind})", truth, "0 dark, 1 light")]
    for name, matrix in cosines.items():
        off = matrix[~torch.eye(len(matrix), dtype=torch.bool)]
        low, high = (float(v) for v in torch.quantile(off, off.new_tensor([0.02, 0.98])))
        shown = (matrix - low) / max(high - low, 1e-9)
        order = _correlation(matrix, truth)
        figures.append(_matrix(name, shown, f"cosine {low:.2f} to {high:.2f}; {order}"))
    return (
        markup.note(
            f"{len(rows)} held-out scenes in rows and columns, ordered by their classes. Where the "
            "embedding follows the labels, its pattern is that of the first square."
        )
        + f'<div class="matrices">{"".join(figures)}</div>'
    )


def _matrix(name: str, values: Tensor, words: str) -> str:
    colours = mpl.colormaps["magma"](values.clamp(0, 1).nan_to_num().numpy())[..., :3]
    return (
        f'<figure class="matrix">{markup.picture(colours, f"similarity, {name}")}'
        f"<figcaption>{markup.escape(name)}: {markup.escape(words)}</figcaption></figure>"
    )


def _correlation(cosine: Tensor, truth: Tensor) -> str:
    # unit vectors with these cosines: the measure takes embeddings
    values, vectors = torch.linalg.eigh(cosine.double())
    embedding = vectors * values.clamp_min(0).sqrt()
    return f"Spearman {label_correlation(embedding, truth):.2f}"
