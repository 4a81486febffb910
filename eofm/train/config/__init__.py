"""Settings of `eofm pretrain`, grouped by what they may change. Standard library only.

`data`, `model`, `method`, `augment` and `optim` change the result; `run` and `monitor` do not, and
`trainer` only by the batches per step and by rounding. `method` has the defaults of the paper's
authors; the other groups those of the demo, a small network from random weights, minutes on two CPU
cores. Without a store the command line trains the demo, whose method is `demo.DEMO_METHOD`.
`configs/pretrain/` has the paper's setting. Choices that the SoftCon paper (arXiv 2405.20462)
leaves open stay selectable.
"""

from eofm.loading.config import AugmentConfig
from eofm.method.config import SoftConConfig
from eofm.train.config.data import DataConfig
from eofm.train.config.export import FORMATS, ExportConfig
from eofm.train.config.model import ModelConfig
from eofm.train.config.monitor import MonitorConfig
from eofm.train.config.optim import OptimConfig
from eofm.train.config.pretrain import PretrainConfig
from eofm.train.config.run import RunConfig
from eofm.train.config.trainer import TrainerConfig

__all__ = [
    "FORMATS",
    "AugmentConfig",
    "DataConfig",
    "ExportConfig",
    "ModelConfig",
    "MonitorConfig",
    "OptimConfig",
    "PretrainConfig",
    "RunConfig",
    "SoftConConfig",
    "TrainerConfig",
]
