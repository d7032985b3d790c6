"""`ddk make-tfrecords`."""

from pathlib import Path

import click

from ddkeras.cli import console
from ddkeras.cli.progress import progress_bar, silence_stderr


def _show(result: dict) -> str:
    lines = [f"note: {note}" for note in result["notes"]]
    if result["left_out"]:
        lines.append(f"left out {result['left_out']} (see {result['folder']}/left_out.csv)")
    lines.append(
        f"read {result['read']} = written {result['written']} + quarantined {result['quarantined']}"
        + (f" (see {result['folder']}/quarantine.csv)" if result["quarantined"] else "")
    )
    for split, counts in result["splits"].items():
        named = [f"{number} {name}" for name, number in (counts["labels"] | counts["categories"]).items()]
        lines.append(f"  {split}: {counts['examples']} images ({', '.join(named) or 'unlabelled'})")
    lines += [f"WARNING: {warning}" for warning in result["warnings"]]
    lines.append(f"fingerprint {result['fingerprint'][:16]}")
    lines.append(f"Records in {result['folder']}. Next: ddk fit")
    return "\n".join(lines)


@console.command("make-tfrecords", show=_show)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--output", default=console.RECORDS, show_default=True, type=click.Path(path_type=Path), help="Where to write."
)
@click.option(
    "--val-fraction",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the images held out as validation, where DATA names no validation split.",
)
@click.option(
    "--split-by",
    default="",
    metavar="COLUMN",
    help="Keep images with the same value in this column of metadata.csv (a person, a source photo, a video) in one "
    "split. Without a metadata.csv: source.",
)
@click.option("--seed", default=0, show_default=True, help="Changes which images are held out, and the order.")
@click.option("--balance", is_flag=True, help="In each split, leave out images of the label that has more.")
@click.option(
    "--drop-duplicates",
    is_flag=True,
    help="Leave out copies of a file, and of two near-duplicates in different splits the one in train.",
)
@click.option(
    "--equalise",
    is_flag=True,
    help="Put every image through one random crop, resize and JPEG, so that no label can be told from its files.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Decode every image as a check. Without it a damaged one stops the training that reads it.",
)
@click.option(
    "--on-bad",
    default="quarantine",
    show_default=True,
    type=click.Choice(["quarantine", "fail"]),
    help="At a file that cannot be read: list it and leave it out, or stop.",
)
@click.option(
    "--max-bad",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the files that may be left out so before it is an error.",
)
@click.option(
    "--max-pixels",
    default=100_000_000,
    show_default=True,
    type=click.IntRange(1),
    help="An image that says it has more is left out before it is decoded.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one per core]")
def make_tfrecords(
    data: Path,
    output: Path,
    val_fraction: float,
    split_by: str,
    seed: int,
    balance: bool,
    drop_duplicates: bool,
    equalise: bool,
    **options,
) -> dict:
    """Turn the images in DATA into sharded TFRecords.

    DATA is a folder in one of these layouts, names in any case:

    \b
      {train,val|validation,test}/{real,fake|deepfake}/{class}/NAME
      the same without {class}, without the split, or without both
      a metadata.csv with image_path, label, class and, if known, source
      a flat test/ without label folders becomes an unlabelled split

    The encoded files are stored as found, and each is decoded once as a check. TIFF, AVIF, HEIC, 16-bit and
    animated images become PNG, of the first frame. A file that cannot be read is left out and listed, with the
    reason, in quarantine.csv.

    Records made earlier are replaced when all is written. Interrupted, even killed, the same command goes on where
    it was. At the end a quick audit says whether the labels can be told from the files alone; `ddk audit` looks
    closer.

    \b
    Examples:
      ddk make-tfrecords data/
      ddk make-tfrecords photos/ --val-fraction 0.1 --split-by person
      ddk make-tfrecords mixed/ --equalise --drop-duplicates
    """
    from pipelines.audit.duplicates import duplicates_to_drop
    from pipelines.audit.report import quick_warnings
    from pipelines.datasets.layouts import read_layout
    from pipelines.records.conversion import start_workers, write_records
    from pipelines.records.equalization import Equaliser, common_size

    with silence_stderr():
        start_workers()
    layout = read_layout(data, val_fraction=val_fraction, seed=seed, split_by=split_by)
    if drop_duplicates:
        with progress_bar("looking for duplicates") as progress:
            layout.examples.leave_out(duplicates_to_drop(layout, workers=options["workers"], progress=progress))
    if balance:
        layout.examples.balance()
    equaliser = Equaliser(common_size(layout), seed) if equalise else None
    with progress_bar("converting") as progress:
        manifest = write_records(
            layout, output, equaliser=equaliser, progress=progress, note=layout.notes.append, **options
        )
    # After equalising, the files say nothing about the records any more.
    warnings = quick_warnings(layout, workers=options["workers"]) if equaliser is None else []
    return {"folder": str(output), "notes": layout.notes, "warnings": warnings, **manifest}
