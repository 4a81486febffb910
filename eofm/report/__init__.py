"""Figures and pages from plain records: this folder knows no trainer and no task.

`plots` draws scores, curves, classes and places; `sheets` shows images; `tables` holds tables with
named columns and facts, for a terminal or a page; `pages` makes one HTML file of blocks; `output`
cleans names and writes files.
"""
