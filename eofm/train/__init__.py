"""Pretraining: two views, the LightningModule, the run directory."""
