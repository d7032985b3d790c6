"""What a conversion hands to its worker processes, and the account that comes back of each shard."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipelines import atomic
from pipelines.records.equalization import Equaliser


@dataclass(frozen=True)
class ConversionOptions:
    """What is done to every file of a conversion; `root` is the data folder."""

    root: Path
    categories: list[str]
    verify: bool  # decode every image as a check
    max_pixels: int
    fail_on_bad: bool  # stop at a file that cannot be read, rather than list it
    equaliser: Equaliser | None = None


@dataclass(frozen=True)
class Shard:
    """A shard of `length` examples of a split: its name, and where the account of it goes when it is written."""

    split: str
    length: int
    path: Path
    account_path: Path


@dataclass(frozen=True)
class Quarantined:
    """A file that was left out, and why."""

    path: str
    reason: str
    bytes: int
    sha256: str


@dataclass
class ShardStats:
    """What became of a shard's examples."""

    counts: Counter = field(default_factory=Counter)  # of (label, category)
    content: int = 0  # sum of the examples' hashes, so that neither order nor sharding changes the total
    bytes: int = 0  # size of the shard
    quarantined: list[Quarantined] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
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
