"""The pictures of a run and its page in W&B, as media: images, and a file of HTML that loads nothing."""

from typing import TYPE_CHECKING, Any

from fno_telemetry.sinks.dashboard_pictures import GROUP, PAGE, draw, make_page
from fno_telemetry.sinks.kept_series import KeptSeries
from fno_telemetry.sinks.wandb.rows import STEP

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run


def log_pictures(run: "Run", series: KeptSeries, commit: bool) -> tuple[list[str], str | None]:
    """Log the pictures and the page in one row, at the last step; return their keys, and what is missing.

    What is missing is a line with the reason; None if nothing is.

    They are in no summary, which has the numbers of the whole model alone. Without `commit` they are added
    to the open row, or to the next one.
    """
    last = series.last
    if last is None:
        return [], None
    import wandb

    drawn, no_pictures = draw(series)
    page, no_page = make_page(series)
    media: dict[str, Any] = {
        picture.key: wandb.Image(picture.pixels, caption=picture.caption) for picture in drawn
    }
    if page is not None:
        # With `inject`, W&B would add a style sheet from its server.
        media[PAGE] = wandb.Html(page, inject=False)
    if media:
        step_metric = None if last.step is None else STEP
        run.define_metric(f"{GROUP}/*", step_metric=step_metric, summary="none")
        if last.step is not None:
            media[STEP] = last.step
        run.log(media, commit=commit)
    missing = None
    if no_page is not None and no_pictures is not None:
        missing = f"the pictures and the page of this run: {no_page}"
    elif no_pictures is not None:
        missing = f"pictures of this run: {no_pictures}"
    elif no_page is not None:
        missing = f"the page of this run: {no_page}"
    keys = [picture.key for picture in drawn] + ([PAGE] if page is not None else [])
    return keys, None if missing is None else f"W&B lacks {missing}"
