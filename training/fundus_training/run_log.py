"""What a run writes for people: one CSV row an epoch, and the same figures for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from fundus_training.files import write_atomically

__all__ = ["RunLog"]


class RunLog:
    """Logs in a run's folder: `metrics.csv` and `tensorboard/`.

    Args:
        folder: the run's folder.
        first_epoch: TensorBoard's events of this epoch and later ones are dropped, as a run that
            is resumed writes them again.
    """

    def __init__(self, folder: Path, *, first_epoch: int = 0) -> None:
        self._csv = folder / "metrics.csv"
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch)

    def write(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write all epochs to the CSV and the last one to TensorBoard."""
        columns = list(dict.fromkeys(name for row in history for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_atomically(self._csv, text.getvalue().encode())
        row = history[-1]
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
