"""All that watches a run, in the order in which it must look."""

from __future__ import annotations

from dataclasses import asdict

from lightning.pytorch.callbacks import Callback

from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.folder import RunFolder
from eofm.train.monitoring.guard import Guard
from eofm.train.monitoring.journal import RunJournal, StepLog
from eofm.train.monitoring.loggers import make_writers
from eofm.train.monitoring.online import OnlineMonitor
from eofm.train.monitoring.pace import Pace


def watch(config: PretrainConfig, data: StoreDataModule, folder: RunFolder) -> list[Callback]:
    """Return the callbacks that log, look, show and guard; checkpoints come after them.

    Args:
        config: All settings.
        data: Which scenes are held out.
        folder: Of the run.

    Raises:
        ConfigError: If a logger is not installed, or a store to look at has too few labels.
    """
    settings: dict[str, object] = asdict(config)
    journal = RunJournal(folder.path, make_writers(config.monitor.writers, folder.path, settings))
    pace = Pace(journal)
    log = StepLog(journal)
    columns = data.batch + config.method.queue
    if not config.monitor.looks:
        return [log, pace, Guard(config, folder.checkpoint, None, columns)]
    online = OnlineMonitor(config, data, journal, pace)
    return [log, online, pace, Guard(config, folder.checkpoint, online, columns)]
