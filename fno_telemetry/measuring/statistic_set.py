"""Which statistics a capture measures: those asked for, those that they need, each by what it is of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from fno_telemetry import plugins
from fno_telemetry.errors import OptionError
from fno_telemetry.quantities import QUANTITIES, Quantity
from fno_telemetry.statistics.contract import OF_BLOCKS, OF_MODULES, Of, Statistic, why_no_statistic

_ORDER = (*OF_MODULES, *OF_BLOCKS)


@dataclass(frozen=True)
class StatisticSet:
    """Statistics, each after those that it needs; `recorded` are the names of those that were asked for."""

    statistics: tuple[Statistic, ...]
    recorded: frozenset[str]

    def of(self, kind: Of) -> tuple[Statistic, ...]:
        """Return the statistics of this kind."""
        return self._by_kind.get(kind, ())

    @cached_property
    def _by_kind(self) -> dict[Of, tuple[Statistic, ...]]:
        return {kind: tuple(one for one in self.statistics if one.of == kind) for kind in _ORDER}

    @property
    def foreign_quantities(self) -> tuple[Quantity, ...]:
        """What statistics of other packages say of their numbers, which a record has to hold."""
        asked = [one for one in self.statistics if one.name in self.recorded]
        found = {quantity.name: quantity for statistic in asked for quantity in statistic.quantities}
        return tuple(quantity for name, quantity in found.items() if name not in QUANTITIES)


def choose_statistics(asked: Sequence[Statistic] | None) -> tuple[StatisticSet, list[str]]:
    """Return what to measure, all that are known by default, and a line for each plug-in that cannot be used.

    OptionError when what was asked for is no statistic, stands twice, or needs something that cannot be had.
    """
    if asked is None:
        return _all_known()
    for statistic in asked:
        if (reason := why_no_statistic(statistic)) is not None:
            raise OptionError(f"`statistics` holds {_called(statistic)}, which is no statistic: {reason}")
    names = [statistic.name for statistic in asked]
    if twice := [name for name in names if names.count(name) > 1]:
        raise OptionError(f"`statistics` holds {twice[0]!r} twice")
    return StatisticSet(_with_needs(asked), frozenset(names)), []


def _all_known() -> tuple[StatisticSet, list[str]]:
    found: list[Statistic] = []
    problems = []
    for name in plugins.names("statistics"):
        try:
            statistic = plugins.load("statistics", name)()
            if (reason := why_no_statistic(statistic)) is not None:
                raise OptionError(f"it is no statistic: {reason}")
            # Its needs may not be there either, which must not cost the others.
            _with_needs([*found, statistic])
        except Exception as error:
            # One broken package may not end every capture.
            if name in plugins.STATISTICS:
                raise
            problems.append(f"the statistic {name!r} is left out: {error}")
        else:
            found.append(statistic)
    return StatisticSet(_with_needs(found), frozenset(one.name for one in found)), problems


def _with_needs(asked: Iterable[Statistic]) -> tuple[Statistic, ...]:
    """Return the statistics with all that they need, directly or not, each after what it needs."""
    known = {statistic.name: statistic for statistic in asked}
    ordered: dict[str, Statistic] = {}

    def add(name: str, waiting: tuple[str, ...]) -> None:
        if name in ordered:
            return
        if name in waiting:
            raise OptionError(f"statistics need one another in a circle: {' → '.join((*waiting, name))}")
        statistic = known[name] if name in known else _load(name, waiting[-1])
        for needed in statistic.needs:
            add(needed, (*waiting, name))
            if _place(ordered[needed]) > _place(statistic):
                raise OptionError(
                    f"the statistic {name!r} is of {statistic.of} and needs {needed!r}, which is of "
                    f"{ordered[needed].of} and is only known later"
                )
        ordered[name] = statistic

    for name in known:
        add(name, ())
    return tuple(ordered.values())


def _load(name: str, needed_by: str) -> Statistic:
    try:
        make: Callable[[], Statistic] = plugins.load("statistics", name)
        return make()
    except Exception as error:
        raise OptionError(
            f"the statistic {needed_by!r} needs {name!r}, which cannot be had: {error}"
        ) from error


def _place(statistic: Statistic) -> tuple[bool, int]:
    """Return where in the order of summarizing it comes; numbers of blocks and of modules never meet."""
    return statistic.of in OF_BLOCKS, _ORDER.index(statistic.of)


def _called(statistic: object) -> str:
    name = getattr(statistic, "name", None)
    return repr(name) if isinstance(name, str) else f"a {type(statistic).__name__}"
