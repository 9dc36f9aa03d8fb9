"""Files of `torch.save` inside other files."""

import shutil
import tempfile
from typing import IO

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.checksums import describe_checksums
from fno_telemetry.sources.unpickling import read_torch_file


def read_torch_stream(stream: IO[bytes], where: str, *, trust: bool = False) -> tuple[object, str]:
    """Return what `torch.save` wrote to a stream, and what its checksums say.

    A CheckpointError about it names `where` it is from.
    """
    try:
        # A copy on the disk, since there is one way to read such files, and it takes a path.
        with tempfile.NamedTemporaryFile(suffix=".pt") as file:
            shutil.copyfileobj(stream, file)
            file.flush()
            try:
                return read_torch_file(file.name, trust=trust), describe_checksums(file.name)
            except CheckpointError as error:
                raise CheckpointError(str(error).replace(file.name, where)) from error
    except OSError as error:
        folder = tempfile.gettempdir()
        raise CheckpointError(
            f"{where}: cannot be copied to {folder} for reading ({error.strerror}). Make room there, or set "
            "TMPDIR to another folder."
        ) from error
