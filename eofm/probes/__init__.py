"""Probes of frozen features, metrics and their intervals. numpy and torch only."""
