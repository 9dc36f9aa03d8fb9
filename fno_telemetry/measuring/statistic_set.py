"""The statistics that a capture measures: those requested and those that they need, by kind."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from fno_telemetry import plugins
from fno_telemetry.errors import OptionError
from fno_telemetry.quantities import QUANTITIES, Quantity
from fno_telemetry.statistics.contract import (
    OF_BLOCKS,
    OF_MODEL,
    OF_MODULES,
    Of,
    Statistic,
    keys_of,
    why_no_statistic,
)

_ORDER = (*OF_MODULES, *OF_BLOCKS, *OF_MODEL)


@dataclass(frozen=True)
class StatisticSet:
    """Statistics, each after those that it needs; `recorded` are the names of the requested ones."""

    statistics: tuple[Statistic, ...]
    recorded: frozenset[str]

    def of(self, kind: Of) -> tuple[Statistic, ...]:
        """Return the statistics of this kind."""
        return self._by_kind.get(kind, ())

    @cached_property
    def _by_kind(self) -> dict[Of, tuple[Statistic, ...]]:
        return {kind: tuple(one for one in self.statistics if one.of == kind) for kind in _ORDER}

    @cached_property
    def keys(self) -> dict[str, tuple[str, ...]]:
        """The names of the numbers of each statistic, by its name."""
        return {one.name: keys_of(one) for one in self.statistics}

    @cached_property
    def needed_keys(self) -> dict[str, tuple[str, ...]]:
        """The names of the numbers that each statistic needs, by its name."""
        return {one.name: tuple(k for name in one.needs for k in self.keys[name]) for one in self.statistics}

    @property
    def foreign_quantities(self) -> tuple[Quantity, ...]:
        """The quantities of requested statistics from other packages, which the record stores."""
        requested = [one for one in self.statistics if one.name in self.recorded]
        quantities = {quantity.name: quantity for statistic in requested for quantity in statistic.quantities}
        return tuple(quantity for name, quantity in quantities.items() if name not in QUANTITIES)


def choose_statistics(asked: Sequence[Statistic] | None) -> tuple[StatisticSet, list[str]]:
    """Return the statistics to measure, by default all known ones, and a line for each unusable plug-in.

    OptionError if a requested object is not a statistic, is given twice, or needs a missing statistic.
    """
    if asked is None:
        return _all_known()
    if not isinstance(asked, Sequence):
        raise OptionError(f"`statistics` is {_called(asked)}; expected a list of statistics")
    for statistic in asked:
        if isinstance(statistic, type):
            raise OptionError(f"`statistics` holds the class {statistic.__name__}; expected an object of it")
        if (reason := why_no_statistic(statistic)) is not None:
            raise OptionError(f"`statistics` holds {_called(statistic)}, which is not a statistic: {reason}")
    names = [statistic.name for statistic in asked]
    if twice := [name for name in names if names.count(name) > 1]:
        raise OptionError(f"`statistics` holds {twice[0]!r} twice")
    return StatisticSet(_with_needs(asked), frozenset(names)), []


def _all_known() -> tuple[StatisticSet, list[str]]:
    usable: list[Statistic] = []
    problems = []
    own = len(plugins.STATISTICS)  # these come first, and fit together
    for number, name in enumerate(plugins.names("statistics"), 1):
        try:
            statistic = plugins.load("statistics", name)()
            if (reason := why_no_statistic(statistic)) is not None:
                raise OptionError(f"it is not a statistic: {reason}")
            if number > own:
                # A missing need must not affect other statistics either.
                _with_needs([*usable, statistic])
        except Exception as error:
            # One broken package must not stop every capture.
            if name in plugins.STATISTICS:
                raise
            problems.append(f"the statistic {name!r} is left out: {error}")
        else:
            usable.append(statistic)
    return StatisticSet(_with_needs(usable), frozenset(one.name for one in usable)), problems


def _with_needs(asked: Iterable[Statistic]) -> tuple[Statistic, ...]:
    """Return the statistics with all that they need, directly or indirectly, each after its needs."""
    known = {statistic.name: statistic for statistic in asked}
    ordered: dict[str, Statistic] = {}

    def add(name: str, waiting: tuple[str, ...]) -> None:
        if name in ordered:
            return
        if name in waiting:
            raise OptionError(f"statistics need each other in a circle: {' → '.join((*waiting, name))}")
        statistic = known[name] if name in known else _load(name, waiting[-1])
        for needed in statistic.needs:
            add(needed, (*waiting, name))
            if _place(ordered[needed]) > _place(statistic):
                raise OptionError(
                    f"the statistic {name!r} of {statistic.of} needs {needed!r} of {ordered[needed].of}, "
                    "which is summarized later"
                )
        ordered[name] = statistic

    for name in known:
        add(name, ())
    _refuse_common_numbers(ordered.values())
    return tuple(ordered.values())


def _refuse_common_numbers(statistics: Iterable[Statistic]) -> None:
    """Raise OptionError if two statistics give a number of the same name, which would replace the other."""
    giver: dict[str, str] = {}
    for statistic in statistics:
        for key in keys_of(statistic):
            other = giver.setdefault(key, statistic.name)
            if other != statistic.name:
                raise OptionError(f"the statistics {other!r} and {statistic.name!r} both give {key!r}")


def _load(name: str, needed_by: str) -> Statistic:
    try:
        make: Callable[[], Statistic] = plugins.load("statistics", name)
        return make()
    except Exception as error:
        raise OptionError(
            f"the statistic {needed_by!r} needs {name!r}, which cannot be loaded: {error}"
        ) from error


def _place(statistic: Statistic) -> int:
    """Return the position in the order of summarizing."""
    return _ORDER.index(statistic.of)


def _called(statistic: object) -> str:
    name = getattr(statistic, "name", None)
    return repr(name) if isinstance(name, str) else f"a {type(statistic).__name__}"
