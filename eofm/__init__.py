"""eofm: pretrain, benchmark and use satellite encoders."""

__version__ = "0.1.0"
