"""What a conversion hands to its worker processes, and the statistics it gets back of each shard."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipelines import atomic
from pipelines.records.equalization import Equaliser


@dataclass(frozen=True)
class ConversionOptions:
    """How every file of a conversion is treated.

    Attributes:
        root: the data folder.
        categories: the class names, by class index.
        verify: decode every image as a check.
        max_pixels: images with more are quarantined.
        fail_on_bad: stop at a file that cannot be read, instead of quarantining it.
        equaliser: applied to every image.
    """

    root: Path
    categories: list[str]
    verify: bool
    max_pixels: int
    fail_on_bad: bool
    equaliser: Equaliser | None = None


@dataclass(frozen=True)
class Shard:
    """A planned shard.

    Attributes:
        split: its name.
        length: number of examples.
        path: where the shard goes.
        stats_path: where its `ShardStats` go once it is written.
    """

    split: str
    length: int
    path: Path
    stats_path: Path


@dataclass(frozen=True)
class Quarantined:
    """A file that was left out because it cannot be read; `sha256` is empty where it could not be computed."""

    path: str
    reason: str
    bytes: int
    sha256: str


@dataclass
class ShardStats:
    """What was written to a shard.

    Attributes:
        counts: written examples by (label, category).
        content: sum of the hashes of the examples, which neither their order nor the sharding changes.
        bytes: size of the shard.
        quarantined: the files that were left out.
        labelled: SHA-256 (of the file as found, in hexadecimal), label and path of each labelled example.
    """

    counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    content: int = 0
    bytes: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    labelled: list[tuple[str, int, str]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        values = vars(self) | {
            "counts": [[*key, number] for key, number in self.counts.items()],
            "quarantined": [asdict(bad) for bad in self.quarantined],
        }
        with atomic.file(path) as partial:
            partial.write_text(json.dumps(values))

    @classmethod
    def load(cls, path: Path) -> "ShardStats":
        """Read what `save` wrote."""
        values = json.loads(path.read_text())
        values["counts"] = Counter({(label, category): number for label, category, number in values["counts"]})
        values["quarantined"] = [Quarantined(**row) for row in values["quarantined"]]
        return cls(**values)
