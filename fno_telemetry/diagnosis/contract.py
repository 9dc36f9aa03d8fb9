"""What a rule is, and what it yields.

    @rule(
        about="values",
        fires_on=lambda: change_module(healthy_record(), "blocks.1.local", rms=1e-9),
        silent_on=lambda: change_module(healthy_record(), "blocks.1.local", rms=0.5),
    )
    def quiet_layer(record, *, least_rms=1e-6):
        '''A layer is quiet.  Formula: …  Default: …  False alarm when: …'''
        for place, rms in select_defined(module_places(record), "rms"):
            if rms < least_rms:
                yield Symptom(severity="warning", place=place, message="is quiet", evidence={…}, advice="…")

A rule is a generator function that yields a `Symptom` for each problem; `diagnose` makes findings of them.
Its thresholds are keyword-only arguments whose defaults are numbers; a TOML file may change them.
`explain_rule` returns its docstring. A rule whose first argument is called `series` gets all records of a run
by ascending step, two or more. A rule with a keyword argument `baseline` gets the record of the same network
when it was healthy, or None; one with `test` gets the record of the same weights on test samples, or None;
one with `resampled` that of the same fields at another resolution, or None.
A rule is applied only where there is what it `needs`, and `diagnose` tells the user what was missing. Rules
skip null statistics.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, get_args

from fno_telemetry.diagnosis.places import Place
from fno_telemetry.errors import OptionError
from fno_telemetry.findings import Severity
from fno_telemetry.records import CaptureRecord, FrozenMapping, Value
from fno_telemetry.wording import hint_at_names

Topic = Literal[
    "input", "target", "training", "finiteness", "values", "weights", "gradients", "accuracy", "steps"
]
"""What rules are about: the input, the target, how parameters move, NaN and infinity, what layers return,
weights, gradients, the output compared with the target, and a series."""

TOPICS: tuple[Topic, ...] = get_args(Topic)

Need = Literal["target", "gradients", "training", "baseline", "test", "resolution"]
"""What a rule cannot do without: a target, gradients, what only a training loop knows (updates, and how far
parameters moved), the records that users give as `baseline` and `test`, and one of the same fields at another
resolution."""

NEEDS: tuple[Need, ...] = get_args(Need)

_RECORDS = ("baseline", "test", "resampled")  # keyword arguments of a rule that are no thresholds

Evidence = Mapping[str, Value | str]
"""Name -> number or text; None is left out of the finding."""

_SHOWN = (
    ("message", str, "a text"),
    ("advice", str, "a text"),
    ("confirm", str, "a text"),
    ("evidence", Mapping, "a mapping"),
)

Example = Callable[[], CaptureRecord | Sequence[CaptureRecord]]
"""Returns a record, or the records of a series for a rule over a series."""


@dataclass(frozen=True, kw_only=True)
class Consequences:
    """The rules whose findings a symptom explains: all `about` some topics, and some `rules` by name."""

    about: tuple[Topic, ...] = ()
    rules: tuple[str, ...] = ()
    but_not: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for topic in self.about:
            _check_topic(topic)

    def cover(self, rule: "Rule") -> bool:
        """Whether findings of this rule would follow from the symptom."""
        return rule.name not in self.but_not and (rule.about in self.about or rule.name in self.rules)


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """What a rule found at one place; no place means the whole model.

    `message` says what was seen and what was expected, `advice` the likely cause first and then what to do;
    `confirm` says which number would show that this is the cause, and what it would be.
    `explains` covers the rules whose findings here and later in the forward would follow from this symptom.
    `record` is the record of the series in which a rule over a series found it; other rules leave it out.
    """

    severity: Severity
    message: str
    evidence: Evidence
    advice: str
    confirm: str = ""
    place: Place[Any] | None = None
    explains: Consequences = field(default_factory=Consequences)
    record: CaptureRecord | None = None


def check_symptom(symptom: object) -> Symptom:
    """Return what a rule yielded; TypeError where it is no symptom, or has a part that no view can show."""
    if not isinstance(symptom, Symptom):
        raise TypeError(f"it yields a {type(symptom).__name__}, not a Symptom")
    if symptom.severity not in get_args(Severity):
        raise TypeError(f"its severity is {symptom.severity!r}")
    for part, kind, words in _SHOWN:
        if not isinstance(value := getattr(symptom, part), kind):
            raise TypeError(f"its {part} is of type {type(value).__name__}; expected {words}")
    for name, value in symptom.evidence.items():
        if not isinstance(name, str) or not (value is None or isinstance(value, str | Real)):
            raise TypeError(
                f"its evidence {name!r} is of type {type(value).__name__}; expected a number or text"
            )
    return symptom


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """A rule as `rule` makes it of a generator function; call it with a record, or with a series of records.

    `text` is the function's docstring, `thresholds` are its keyword-only arguments with their defaults. Of
    findings of the same severity, those of rules with a smaller `yields` come first: 0 for causes, 1 for
    outcomes, such as a large error, 2 for changes since the baseline that nearly everything brings about.
    `fires_on` and `silent_on` make an example on which the rule yields a symptom, and one on which it does
    not, `against` the record that both are compared with; `fno_telemetry.testing.rules.check_rule` judges the
    rule by them.
    """

    name: str
    about: Topic
    text: str
    thresholds: Mapping[str, float]
    needs: tuple[Need, ...]
    takes_series: bool
    takes_baseline: bool
    takes_test: bool
    takes_resampled: bool
    yields: int
    fires_on: Example | None
    silent_on: Example | None
    against: Example | None
    function: Callable[..., Iterator[Symptom]]

    def __post_init__(self) -> None:
        _check_topic(self.about)
        for need in self.needs:
            if need not in NEEDS:
                raise OptionError(f"{need!r} is not what a rule can need. {hint_at_names(str(need), NEEDS)}")
        for name, default in self.thresholds.items():
            if isinstance(default, bool) or not isinstance(default, int | float):
                raise TypeError(f"rule {self.name}: the default of threshold {name} must be a number")

    def __call__(
        self, of: CaptureRecord | Sequence[CaptureRecord], **arguments: float | CaptureRecord | None
    ) -> Iterator[Symptom]:
        """Yield the symptoms of a record or series; `arguments` are thresholds and other records."""
        return self.function(of, **arguments)


def rule(
    *,
    about: Topic,
    needs: tuple[Need, ...] = (),
    fires_on: Example | None = None,
    silent_on: Example | None = None,
    against: Example | None = None,
    yields: int = 0,
) -> Callable[[Callable[..., Iterator[Symptom]]], Rule]:
    """Make a `Rule` of a generator function, which gives it its name, docstring and thresholds.

    Args:
        about: The topic of the rule, by which a cause of another rule can explain its findings.
        needs: What a record, or the user, must give for the rule to be applied at all.
        fires_on: Makes a record (or series) on which the rule yields a symptom.
        silent_on: Makes a record (or series) on which it yields none.
        against: Makes the record that is given with both as `resampled`, else `test`, else `baseline`.
        yields: 1 or 2 if other findings of the same severity come before its own; see `Rule`.

    Raises:
        OptionError: an unknown topic or need.
        TypeError: a threshold without a default that is a number.
    """

    def make(function: Callable[..., Iterator[Symptom]]) -> Rule:
        parameters = inspect.signature(function).parameters
        return Rule(
            name=function.__name__,
            about=about,
            text=inspect.getdoc(function) or "",
            needs=tuple(needs),
            thresholds=FrozenMapping(
                {
                    parameter.name: parameter.default
                    for parameter in parameters.values()
                    if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _RECORDS
                }
            ),
            takes_series=next(iter(parameters), None) == "series",
            takes_baseline="baseline" in parameters,
            takes_test="test" in parameters,
            takes_resampled="resampled" in parameters,
            yields=yields,
            fires_on=fires_on,
            silent_on=silent_on,
            against=against,
            function=function,
        )

    return make


def _check_topic(topic: str) -> None:
    if topic not in TOPICS:
        raise OptionError(f"{topic!r} is not a topic of rules. {hint_at_names(str(topic), TOPICS)}")
