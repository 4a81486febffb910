"""Which data sets there are, and one vocabulary of their tasks for every verb.

A module or package of this folder that has a `DATASET` is a data set: adding one is adding a file.
Nothing here opens a file of images, and no heavy library is loaded.

A task is named by its full name (`bigearthnet-v1-s1-43`) or by its family (`bigearthnet`), the name
of its data set: `eofm bench`, of records all tasks of the family, of a plan the one that `eofm
bench FAMILY` runs.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import product
from typing import Any, Final, get_args, get_type_hints

import eofm.datasets
from eofm.datasets.base import Benchmark, Dataset, Task
from eofm.errors import ConfigError

__all__ = [
    "DATASETS",
    "FAMILIES",
    "TASKS",
    "family_of",
    "find_datasets",
    "find_task",
    "options_of",
    "task_filter",
]


def find_datasets(folders: Sequence[str]) -> dict[str, Dataset]:
    """Return the data sets that the modules of some folders declare, by name.

    Args:
        folders: Folders of modules of `eofm.datasets`.

    Raises:
        ConfigError: If two modules declare one name.
    """
    found: dict[str, Dataset] = {}
    homes: dict[str, str] = {}
    for module in pkgutil.iter_modules(folders, "eofm.datasets."):
        dataset = getattr(import_module(module.name), "DATASET", None)
        if isinstance(dataset, Dataset):
            if dataset.name in found:
                raise ConfigError(
                    "two modules declare one data set",
                    found=f"{homes[dataset.name]} and {module.name}",
                    expected=f"one module with {dataset.name!r}",
                    remedy="give one of them another name",
                )
            found[dataset.name], homes[dataset.name] = dataset, module.name
    return found


DATASETS: Final[Mapping[str, Dataset]] = find_datasets(eofm.datasets.__path__)

# Family of tasks, as in `eofm bench FAMILY` -> how it is scored.
FAMILIES: Final[Mapping[str, Benchmark[Any]]] = {
    dataset.name: dataset.benchmark for dataset in DATASETS.values() if dataset.benchmark
}

# Every declared task by its full name.
TASKS: Final[Mapping[str, Task]] = {
    task.name: task for benchmark in FAMILIES.values() for task in benchmark.tasks
}


def family_of(task: str) -> str:
    """Return the family of a task's full name; empty if it has none."""
    return next((name for name in FAMILIES if f"{task}-".startswith(f"{name}-")), "")


def options_of(task: str) -> Mapping[str, str] | None:
    """Return the options of `eofm bench FAMILY` that name a task; None if there is no such task.

    Args:
        task: Full name.
    """
    family = family_of(task)
    if not family or FAMILIES[family].own:
        return None
    settings = FAMILIES[family].settings
    choices = [get_args(get_type_hints(settings)[name]) for name in settings.named_by]
    for values in product(*choices):
        options = dict(zip(settings.named_by, values, strict=True))
        with suppress(ConfigError):  # a combination that does not exist
            if settings("", **options).task == task:
                return {name: str(value) for name, value in options.items()}
    return None


def find_task(name: str) -> Task:
    """Return the task of a name; of a family, the one that `eofm bench FAMILY` runs.

    Args:
        name: Full name (`bigearthnet-v1-s1-43`) or family (`bigearthnet`).

    Raises:
        ConfigError: If no task is declared under that name.
    """
    if name in TASKS:
        return TASKS[name]
    if name not in FAMILIES:
        raise _unknown(name)
    if FAMILIES[name].own:
        raise ConfigError(
            f"the images of `{name}` are your own: no task is declared for them",
            found=name,
            expected=", ".join(TASKS),
        )
    return TASKS[FAMILIES[name].settings("").task]


def task_filter(word: str) -> Callable[[str], bool]:
    """Return which names of tasks in records a word asks for.

    Args:
        word: Full name, family, `folder-NAME`, `masks-NAME`, or nothing for all.

    Raises:
        ConfigError: If no task has that name.
    """
    family = family_of(word)
    if word not in {"", *TASKS, *FAMILIES} and not (family and FAMILIES[family].own):
        raise _unknown(word)
    return lambda name: word in {"", name, family_of(name)}


def _unknown(name: str) -> ConfigError:
    near = difflib.get_close_matches(name, [*FAMILIES, *TASKS], n=3)
    return ConfigError(
        f"there is no task {name!r}",
        found=name,
        expected=", ".join(FAMILIES) + "; or in full: " + ", ".join(TASKS),
        remedy=f"did you mean {' or '.join(near)}?" if near else None,
    )
