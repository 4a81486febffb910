"""Figures and pages from plain records: this folder knows no trainer and no task.

`plots` draws scores, curves, classes and places; `sheets` shows images; `output` has the style of
both and their files; `tables` holds tables with named columns, facts and names, for a terminal or a
page; `pages` makes one HTML file of blocks.
"""
