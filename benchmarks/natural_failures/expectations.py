"""What counts as naming a cause, and which advice fits it.

A finding names a cause if it is a warning or an error, and either its rule is one of the cause's or its
message says it in words. Rules over values alone (growth, shrinkage, drift) name no cause that lies
elsewhere. Whoever adds a rule that tells a cause adds it here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fno_telemetry import Finding


@dataclass(frozen=True)
class Cause:
    """What a reader would call the cause, as what its findings are recognised by."""

    rules: frozenset[str]
    words: str  # regular expression in "place: message" of a finding of any other rule
    advice: str  # regular expression in the advice of the finding that names it

    def is_named_by(self, finding: Finding) -> bool:
        """Return whether this finding tells the cause, whatever its place."""
        if finding.severity == "note":
            return False
        return finding.rule in self.rules or _find(self.words, f"{finding.where}: {finding.message}")

    def is_served_by(self, finding: Finding) -> bool:
        """Return whether the advice of this finding leads to the cause."""
        return _find(self.advice, finding.advice)


def _find(expression: str, text: str) -> bool:
    return re.search(expression, " ".join(text.split()), re.IGNORECASE) is not None


def _cause(rules: str, words: str, advice: str) -> Cause:
    return Cause(frozenset(rules.split()), words, advice)


MOVES = (
    r"not moved|never moved|did not move|does not move|never (been )?trained|unchanged since"
    r"|as initiali[sz]ed"
)
UNLEARNED = (
    r"mean (of the )?(target|predict)|predict\w* the mean|no better than|not learned|has learned nothing"
)

CAUSES: Mapping[str, Cause] = {
    "input scale": _cause(
        "input_scale unnormalised_input bad_input",
        r"not normali[sz]ed|raw counts",
        r"normali[sz]|subtract|divide",
    ),
    "input channel scale": _cause(
        "input_channel_scale",
        r"channels?.*(another scale|times|larger|smaller|rms|not normali[sz]ed)",
        r"normali[sz].*channel|channel.*normali[sz]|each channel|by channel",
    ),
    "blank samples": _cause("blank_samples", r"(samples?).*(zero|blank|empty)", r"sample|loader|file|data"),
    "non-finite input": _cause(
        "",
        r"(input|sample).*(\bnan\b|not finite|non-finite|infinit)",
        r"input|sample|data|file|loader",
    ),
    "test normalised otherwise": _cause(
        "test_input",
        r"test.*(scale|rms|normali[sz]ed)",
        r"same (mean|statistics|normali)|as in training|normali[sz]",
    ),
    "target scale": _cause(
        "target_scale",
        r"target.*(scale|rms|small|large|normali[sz]ed)",
        r"normali[sz]\w* (the )?target|scale (of )?the target|target.*(normali[sz]|scale)",
    ),
    "unrelated target": _cause(
        "mean_predictor", UNLEARNED, r"pair|shuffl|order|match|belong|align|broadcast|shape"
    ),
    "target order": _cause(
        "mean_predictor field_order",
        r"transposed|swapped|axes|order of",
        r"transpos|swap|axes|reshape|permute|rows",
    ),
    "transform axes": _cause(
        "transform_axes",
        r"transform\w* .*(axes|axis|dimension)|over the channels?|axes",
        r"axes|axis|dim",
    ),
    "band missing": _cause(
        "missing_band high_frequency_loss mode_truncation",
        r"(band|frequenc|fine structure|resolution).*(missing|lost|lacks|less|below|without|not)",
        r"modes|smooth|interpolat|upsampl|dropout|pool|resolution|local|frequenc",
    ),
    "phase lost": _cause("amplitude_or_phase unlearned_channel", r"phase|amplitude", r"phase|amplitude|loss"),
    "output range": _cause(
        "output_range",
        r"(output|target).*(range|negative|below|above|sign|zeros|between|leaves|clipped)",
        r"activation|sigmoid|relu|tanh|last layer|range|at the output",
    ),
    "nothing moves": _cause(
        "parameters_stand_still as_initialised",
        rf"{MOVES}|updates?.*(small|tiny)",
        r"learning rate|rate|optimi[sz]er|clip|requires_grad|gradient",
    ),
    "part does not move": _cause(
        "parameters_stand_still stalled_update as_initialised",
        MOVES,
        r"optimi[sz]er|requires_grad|frozen|freez|detach|no_grad|param",
    ),
    "layer scale": _cause(
        "parameters_stand_still identity_block as_initialised",
        rf"layer ?scale|gamma|{MOVES}",
        r"layer ?scale|gamma|optimi[sz]er|scale|initiali",
    ),
    "spectral weights dead": _cause(
        "parameters_stand_still spectral_branch_dead spectral_branch_weak dead_modes "
        "constant_channels dead_layer",
        r"spectral.*(zero|weak|tiny|nothing|small)",
        r"initiali[sz]|zero|scale|weights",
    ),
    "weights in part": _cause(
        "weights_in_part as_initialised",
        r"not loaded|loaded in part|untrained|as (initiali[sz]ed|at the start)|not in the checkpoint|random",
        r"load|checkpoint|strict|names|missing",
    ),
    "updates too large": _cause(
        "updates_too_large weights_too_large",
        r"updates?.*(large|times)|learning rate|diverg|loss (rose|rises|grew|is not finite|has risen|stays)",
        r"(lower|reduce|smaller|decrease|halve|divide).*rate|rate.*(lower|too high|too large)|warm.?up|clip",
    ),
    "decay too strong": _cause(
        "weight_decay weights_too_small",
        r"weight decay|weights?.*(shrink|shrank|fell|decay)",
        r"weight decay|decay",
    ),
    "loss stopped": _cause(
        "loss_stopped",
        r"(loss|training).*(stopped|stopp|plateau|no longer|stalled)|updates?.*(small|fell)"
        rf"|{MOVES}|rate.*(0|zero|fell)",
        r"schedul|rate|anneal",
    ),
    "overflow": _cause(
        "overflow_risk non_finite",
        r"overflow|not finite|non-finite|\bnan\b|infinit",
        r"float32|precision|half|autocast|dtype|scale|normali[sz]",
    ),
    "dead activations": _cause(
        "dead_channels dead_layer saturated_activation drifting_mean",
        r"dead|zero|switched off|dormant",
        r"relu|activation|rate|initiali[sz]|bias|leaky",
    ),
    "no activation": _cause(
        "linear_network",
        r"linear|no activation|without (an )?activation",
        r"activation|nonlinear|gelu|relu",
    ),
    "padding": _cause(
        "padding_missing", r"border|edge|padding|shifted|boundary", r"pad|crop|border|boundary|shift"
    ),
    "resolution": _cause(
        "other_resolution resolution_dependent",
        r"resolution|grid|aliasing",
        r"resolution|grid|resampl|downsampl",
    ),
    "dropout": _cause("strong_dropout output_size", r"dropout", r"dropout|regulari[sz]"),
    "residual drift": _cause(
        "drifting_mean exploding_activations",
        r"(mean|rms|values).*(drift|grow|rise|times|far)",
        r"norm|residual|scale|initiali[sz]",
    ),
    "batch statistics": _cause(
        "batch_statistics output_size",
        r"running (mean|statistics|variance)|batch.?norm|in eval|eval mode",
        r"batch.?norm|running|momentum|eval|statistics",
    ),
    "overfitting": _cause(
        "overfitting",
        r"overfit|test.*(error|loss).*(times|larger|higher|than)|than (on|of) (the )?training",
        r"more (samples|data)|augment|regulari[sz]|early|overfit|smaller network|weight decay",
    ),
    "leak": _cause(
        "target_leak",
        r"leak|target.*(in|of) the input|input.*(contains|holds|equals?) the target",
        r"leak|target|input",
    ),
    "spike": _cause(
        "collapse_at_step updates_too_large weights_too_large non_finite",
        r"broke at|spike|updates?.*(large|times)|loss (rose|rises|jump)",
        r"(lower|reduce|check).*rate|rate|clip|batch|data",
    ),
}
"""By the label that kinds of failures refer to."""
