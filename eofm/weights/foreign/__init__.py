"""Weights of timm, and torchgeo's names."""
