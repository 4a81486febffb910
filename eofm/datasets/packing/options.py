"""What the settings of the verbs that pack have in common. No heavy library is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from eofm.contract.spec import UNITS, Sensor, Unit
from eofm.errors import ConfigError

SensorName = Literal["s1-grd", "s1-rtc", "s2-l1c", "s2-l2a", "rgb", "naip"]
UnitName = Literal["dn", "dn-offset1000", "reflectance", "uint8", "db", "power"]

Name = TypeVar("Name", bound=str)


def check_workers(workers: int) -> None:
    """Refuse a number of workers below one."""
    if workers < 1:
        raise ConfigError("at least one worker is needed", found=workers)


def split_sensors(text: str, names: Mapping[str, Name]) -> tuple[Name, ...]:
    """Return the sensors of a list such as `s2c,s1`.

    Args:
        text: Names with commas between them.
        names: Every name that may be given -> its sensor.

    Raises:
        ConfigError: If one is unknown, or given twice.
    """
    given = [word.strip() for word in text.split(",")]
    sensors = tuple(names[word] for word in given if word in names)
    if len(set(sensors)) < len(given):
        raise ConfigError(
            "sensors are a list of different names with commas between them",
            found=text,
            expected=" | ".join(names),
        )
    return sensors


def check_sensors(sensor: str | None, sensors: str | None, names: Mapping[str, str]) -> None:
    """Refuse settings that name no sensor, or one and several at once."""
    if (sensor is None) == (sensors is None):
        raise ConfigError(
            "say which sensor to pack, or which sensors",
            found=f"sensor={sensor}, sensors={sensors}",
            remedy=f"--sensor {next(iter(names.values()))}, or "
            f"--sensors {','.join(dict.fromkeys(names.values()))}",
        )
    if sensors is not None:
        split_sensors(sensors, names)


def check_unit(sensor: str, unit: str) -> None:
    """Refuse a unit in which images of a sensor never are."""
    possible = UNITS[Sensor.parse(sensor)]
    if Unit.parse(unit) not in possible:
        raise ConfigError(
            f"{sensor} is never in unit {unit}",
            found=unit,
            expected=" | ".join(sorted(possible)),
            remedy="state the unit the files are in",
        )


def check_labels(
    landcover: str | None, scheme: str | None, threshold: float, min_valid: float
) -> None:
    """Refuse a land-cover map without its scheme, and shares that are none."""
    if (landcover is None) != (scheme is None):
        raise ConfigError(
            "a land-cover map and its scheme belong together",
            found=f"landcover={landcover}, scheme={scheme}",
            remedy="give both, or neither for an unlabelled store",
        )
    check_share("threshold", threshold)
    check_share("min_valid", min_valid)


def check_share(name: str, value: float) -> None:
    """Refuse a number below 0 or above 1."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is a share", found=value, expected="0 to 1")
