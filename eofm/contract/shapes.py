"""Shapes in signatures: the types of jaxtyping, which the tests check.

torch.hub needs torch and timm alone. Nothing evaluates an annotation there, so that any name does.
"""

from __future__ import annotations

from typing import Any

try:
    from jaxtyping import Bool, Float, Float32, Int64, Real, Shaped
except ImportError:
    Bool = Float = Float32 = Int64 = Real = Shaped = Any  # type: ignore[assignment]

__all__ = ["Bool", "Float", "Float32", "Int64", "Real", "Shaped"]
