"""Data sets. A module or package here that has a `DATASET` is one; `base` says what it declares,
`registry` finds it, and what data sets have in common lies in `check`, `images` and `packing`.
"""
