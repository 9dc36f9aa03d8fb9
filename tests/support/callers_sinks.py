"""Sinks that write into what the caller owns, made by functions that another process can import."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from fno_telemetry.sinks.overview import Detail
from fno_telemetry.sinks.tensorboard.sink import TensorBoard


def tensorboard(folder: Path, detail: Detail = "overview") -> TensorBoard:
    return TensorBoard(SummaryWriter(str(folder)), detail=detail)
