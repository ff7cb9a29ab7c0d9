"""When schedules are due and when nodes' windows are open, in time zones as they are. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"^(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})$")


@lru_cache(maxsize=64)
def zone_named(name: str) -> tzinfo:
    """The time zone of that name, such as Europe/Berlin.

    Raises:
        ValueError: this host knows none.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"is no time zone that this host knows: {name!r} (such as Europe/Berlin; tzdata has them)"
        ) from error


def at_ms(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def moment_of(ms: int, zone: tzinfo = UTC) -> datetime:
    return datetime.fromtimestamp(ms / 1000, zone)


@dataclass(frozen=True)
class Cron:
    """A cron expression in a time zone. Where clocks are set it does as Debian's cron: what falls into an hour that is

    left out is due right after it; what falls into one that comes twice is due once.
    """

    expression: str
    zone: str = "UTC"

    def check(self) -> None:
        """Raises:
        ValueError: the expression or the zone is none, or never due.
        """
        from cronsim import CronSimError

        zone_named(self.zone)
        try:
            if next(self.after(0), None) is None:
                raise ValueError(f"is never due: {self.expression!r}")
        except CronSimError as error:
            raise ValueError(
                f"is no cron expression: {self.expression!r}: {error} (minute hour day month weekday: 30 2 * * mon-fri)"
            ) from error

    def after(self, ms: int) -> Iterator[int]:
        """The times (ms since 1970) at which it is due later than then."""
        from cronsim import CronSim

        for moment in CronSim(self.expression, moment_of(ms, zone_named(self.zone))):
            yield at_ms(moment)

    def following(self, ms: int, count: int) -> tuple[int, ...]:
        """The next times after then."""
        return tuple(islice(self.after(ms), count))

    def last_due(self, since_ms: int, now_ms: int) -> int | None:
        """The newest time after ``since_ms`` at which it was due by now; None: none."""
        from cronsim import CronSim

        for moment in islice(CronSim(self.expression, moment_of(now_ms + 1, zone_named(self.zone)), reverse=True), 1):
            found = at_ms(moment)
            return found if found > since_ms else None
        return None


def read_days(text: str) -> frozenset[int]:
    """The weekdays (0: Monday) that "mon-fri", "sat,sun" or "" (all) mean.

    Raises:
        ValueError: it means none.
    """
    found: set[int] = set()
    for part in (text or "mon-sun").lower().replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (last if dash else first) not in DAYS:
            raise ValueError(f"are no weekdays: {text!r} (such as mon-fri, or sat,sun)")
        start, end = DAYS.index(first), DAYS.index(last or first)
        found.update(day % 7 for day in range(start, end + 1 + (7 if end < start else 0)))
    return frozenset(found)


def read_hours(text: str) -> tuple[time, time]:
    """From when to when "20:00-07:00" is; the same twice is a whole day.

    Raises:
        ValueError: it is no such span.
    """
    found = _HOURS.match(text.strip())
    if found:
        hours = [int(part) for part in found.groups()]
        if hours[0] < 24 and hours[2] <= 24 and hours[1] < 60 and hours[3] < 60 and (hours[2] < 24 or hours[3] == 0):
            return time(hours[0], hours[1]), time(hours[2] % 24, hours[3])
    raise ValueError(f"is no span of a day: {text!r} (such as 20:00-07:00)")


@dataclass(frozen=True)
class Window:
    """When nodes take work: so many hours from certain weekdays on, by the clocks on the walls of a time zone."""

    hours: str
    days: str = ""
    zone: str = "UTC"

    def check(self) -> None:
        """Raises:
        ValueError: what is wrong with it.
        """
        read_hours(self.hours)
        read_days(self.days)
        zone_named(self.zone)

    def state(self, now_ms: int) -> tuple[bool, int, int]:
        """Whether it is open then, since when it is so, and when that changes (ms since 1970; far away where never)."""
        spans = list(self._spans(now_ms))
        for opens, closes in spans:
            if opens <= now_ms < closes:
                return True, opens, closes
        before = max((closes for _, closes in spans if closes <= now_ms), default=0)
        after = min((opens for opens, _ in spans if opens > now_ms), default=now_ms)
        return False, before, after

    def _spans(self, now_ms: int) -> Iterator[tuple[int, int]]:
        """When it opens and closes around then, joined where one ends as the next begins."""
        zone, days = zone_named(self.zone), read_days(self.days)
        start, end = read_hours(self.hours)
        today = moment_of(now_ms, zone).date()
        joined: list[tuple[int, int]] = []
        for ahead in range(-9, 10):
            day = today + timedelta(days=ahead)
            if day.weekday() not in days:
                continue
            until = day if end > start else day + timedelta(days=1)
            opens = at_ms(datetime.combine(day, start, zone).astimezone(UTC))
            closes = at_ms(datetime.combine(until, end, zone).astimezone(UTC))
            if joined and joined[-1][1] >= opens:
                joined[-1] = (joined[-1][0], max(closes, joined[-1][1]))
            elif closes > opens:
                joined.append((opens, closes))
        yield from joined

    def told(self) -> str:
        """For people: "20:00-07:00 mon-fri (Europe/Berlin)"."""
        return f"{self.hours}{' ' + self.days if self.days else ''} ({self.zone})"
