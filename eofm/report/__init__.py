"""Figures and pages from plain records."""
