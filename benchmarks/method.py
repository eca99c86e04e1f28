"""How long and how often things are measured: the knobs of a run, kept in its results."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Method:
    """`seconds` is the length of each measurement, `batch_s` that of each size and format of batch.

    The open loop runs `open_s` at each rate, longer at low rates (`open_requests`, but not over `most_open_s`), and
    takes every `rate_step`th of the model's rates.
    """

    rounds: int = 3
    seconds: float = 3.0
    warmup_s: float = 1.0
    connections: tuple[int, ...] = (1, 8, 32)
    serial_most: int = 4000
    batch_s: float = 1.5
    open_s: float = 2.0
    most_open_s: float = 4.0
    open_requests: int = 100
    open_links: int = 128
    rate_step: int = 1
    neighbour_rate: float = 1000.0
    neighbour_s: float = 5.0
    soak_s: float = 0.0
    patience_s: float = 20.0


QUICK = Method(
    rounds=1,
    seconds=1.0,
    warmup_s=0.3,
    serial_most=500,
    batch_s=0.5,
    open_s=0.5,
    most_open_s=1.0,
    open_requests=20,
    rate_step=3,
    neighbour_s=2.0,
    patience_s=1.0,
)
