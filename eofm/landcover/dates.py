"""When a map or a scene is of: a period, from a file name, a STAC item or a table."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from eofm.errors import ConfigError, LabelError

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Period:
    """A span of time in UTC: an instant, a day, a month or a year.

    Args:
        start: Its beginning.
        end: Its end, not before the beginning.
    """

    start: datetime
    end: datetime

    def gap_days(self, other: Period) -> float:
        """Return how far apart two periods are; 0 where they overlap."""
        apart = max(self.start - other.end, other.start - self.end, timedelta(0))
        return apart / _DAY

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read a day, an instant or an interval `start/end`, as ISO 8601 and STAC write them.

        Raises:
            ValueError: If it is none.
        """
        if "/" in text:
            first, _, last = text.partition("/")
            return cls(cls.parse(first).start, cls.parse(last).end)
        if len(text) == 10:
            return cls.days(date.fromisoformat(text), 1)
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return cls(moment, moment)

    @classmethod
    def days(cls, first: date, days: int) -> Period:
        """Return so many whole days from `first` on."""
        start = datetime(first.year, first.month, first.day, tzinfo=UTC)
        return cls(start, start + days * _DAY)

    def __str__(self) -> str:
        midnight = self.start.time() == self.end.time() == datetime.min.time()
        if midnight and self.end > self.start:
            last = (self.end - _DAY).date()
            first = self.start.date()
            return str(first) if first == last else f"{first}/{last}"
        first_moment, last_moment = (
            t.replace(tzinfo=None).isoformat(timespec="seconds") for t in (self.start, self.end)
        )
        return first_moment if self.start == self.end else f"{first_moment}/{last_moment}"


_PARTS: Final = {
    "%Y": r"(?P<Y>\d{4})",
    "%m": r"(?P<m>\d{2})",
    "%d": r"(?P<d>\d{2})",
    "%j": r"(?P<j>\d{3})",
    "%H": r"(?P<H>\d{2})",
    "%M": r"(?P<M>\d{2})",
    "%S": r"(?P<S>\d{2})",
}
_COMPLETE: Final = ("Y", "Ym", "Ymd", "Yj", "YmdH", "YmdHM", "YmdHMS", "YjHMS")


class DatePattern:
    """Where a file name tells a date: text with %Y, %m, %d (or %j) and perhaps %H, %M, %S.

    Args:
        text: As in `%Y%m%d`, `_%Y_` for a year, `%Y-%m` for a month. Digits directly before or
            after it are not a match.

    Raises:
        ConfigError: If it holds no year, or another directive.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        parts = re.split(r"(%.)", text)
        named = [part for part in parts if part in _PARTS]
        fields = "".join(sorted((p[1] for p in named), key="YjmdHMS".index))
        strange = [part for part in parts if part.startswith("%") and part not in _PARTS]
        if strange or fields not in _COMPLETE:
            raise ConfigError(
                "this is no pattern of a date",
                found=text,
                expected="%Y, perhaps with %m and %d, or %j, and %H%M%S",
                remedy="write it as the file names do, as in _%Y%m%d or _%Y_",
            )
        regex = "".join(_PARTS.get(part, re.escape(part)) for part in parts)
        before, after = r"(?<!\d)" * (not parts[0]), r"(?!\d)" * (not parts[-1])
        self._regex = re.compile(before + regex + after)

    def find(self, name: str) -> Period:
        """Return the period that a file name tells.

        Raises:
            LabelError: If it tells none, or several.
        """
        found = {period for match in self._regex.finditer(name) if (period := _period(match))}
        if len(found) != 1:
            raise LabelError(
                "the file name does not tell one date",
                found=", ".join(sorted(map(str, found))) or "none",
                expected=f"one match of {self.text}",
                where=name,
                remedy="write the pattern as the names do, with the characters around the date",
            )
        return found.pop()


def _period(match: re.Match[str]) -> Period | None:
    """Return what a match says, or None where it is no date, such as month 13."""
    part = {name: int(value) for name, value in match.groupdict().items()}
    try:
        if "j" in part:
            first = date(part["Y"], 1, 1) + timedelta(days=part["j"] - 1)
        else:
            first = date(part["Y"], part.get("m", 1), part.get("d", 1))
        if "H" in part:
            clock = (part["H"], part.get("M", 0), part.get("S", 0))
            moment = datetime(first.year, first.month, first.day, *clock, tzinfo=UTC)
            return Period(moment, moment)
    except ValueError:
        return None
    if "d" in part or "j" in part:
        days = 1
    elif "m" in part:
        days = monthrange(first.year, first.month)[1]
    else:
        days = (date(first.year + 1, 1, 1) - first).days
    return Period.days(first, days)
