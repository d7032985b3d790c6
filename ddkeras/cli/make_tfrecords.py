"""`ddk make-tfrecords`."""

from pathlib import Path

import click

from ddkeras.cli import console


def _show(result: dict) -> str:
    lines = [f"note: {note}" for note in result["notes"]]
    lines.append(
        f"read {result['read']} = written {result['written']} + quarantined {result['quarantined']}"
        + (f" (see {result['folder']}/quarantine.csv)" if result["quarantined"] else "")
    )
    for split, counts in result["splits"].items():
        named = [f"{number} {name}" for name, number in (counts["labels"] | counts["categories"]).items()]
        lines.append(f"  {split}: {counts['examples']} images ({', '.join(named) or 'unlabelled'})")
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
@click.option("--seed", default=0, show_default=True, help="Changes which images are held out, and the order.")
def make_tfrecords(data: Path, output: Path, val_fraction: float, seed: int) -> dict:
    """Turn the images in DATA into sharded TFRecords.

    DATA is a folder in one of these layouts, names in any case:

    \b
      {train,val|validation,test}/{real,fake|deepfake}/{class}/NAME
      the same without {class}, without the split, or without both
      a metadata.csv with image_path, label, class and, if known, source
      a flat test/ without label folders becomes an unlabelled split

    The encoded files are stored as found; each is decoded once as a check. A file that cannot be decoded is left
    out and listed, with the reason, in quarantine.csv. Records made earlier are replaced when all is written.

    \b
    Examples:
      ddk make-tfrecords data/
      ddk make-tfrecords photos/ --val-fraction 0.1 --seed 7
    """
    from pipelines.conversion import start_workers, write_records
    from pipelines.layouts import read_layout

    with console.without_chatter():
        start_workers()
    layout = read_layout(data, val_fraction=val_fraction, seed=seed)
    with console.progress("converting") as progress:
        manifest = write_records(layout, output, progress=progress)
    return {"folder": str(output), "notes": layout.notes, **manifest}
