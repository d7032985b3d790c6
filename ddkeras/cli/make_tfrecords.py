"""`ddk make-tfrecords`."""

import json
from pathlib import Path
from typing import Any, get_args

import click

from ddkeras import api
from ddkeras.cli import console
from ddkeras.cli.options import data_options
from ddkeras.cli.stderr import silence_stderr
from pipelines.wording import count_of


def _format_result(result: dict[str, Any]) -> str:
    lines = [f"note: {note}" for note in result["notes"]]
    if result["left_out"]:
        lines.append(f"left out {result['left_out']} (see {result['folder']}/left_out.csv)")
    lines.append(
        f"read {result['read']} = written {result['written']} + quarantined {result['quarantined']}"
        + (f" (see {result['folder']}/quarantine.csv)" if result["quarantined"] else "")
    )
    for split, counts in result["splits"].items():
        listed = [f"{number} {name}" for name, number in (counts["labels"] | counts["categories"]).items()]
        lines.append(f"  {split}: {count_of(counts['examples'], 'image')} ({', '.join(listed) or 'unlabelled'})")
    lines += [f"WARNING: {warning}" for warning in result["warnings"]]
    lines.append(f"fingerprint {result['fingerprint'][:16]}")
    next_command = "ddk fit" if "train" in result["splits"] else f"ddk evaluate --records {result['folder']}"
    lines.append(f"Records in {result['folder']}. Next: {next_command}")
    return "\n".join(lines)


@console.command("make-tfrecords", format_result=_format_result)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--output",
    default=api.RECORDS,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for the records.",
)
@data_options
@click.option(
    "--val-fraction",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the images held out for validation, where DATA names no validation split.",
)
@click.option(
    "--split-by",
    default="",
    metavar="COLUMN",
    help="Keep images with the same value in this column of metadata.csv (a person, a source photo, a video) in one "
    "split. Without a metadata.csv: source.",
)
@click.option("--seed", default=0, show_default=True, help="Decides which images are held out, and the order.")
@click.option("--balance", is_flag=True, help="In each split, drop images of the more frequent label.")
@click.option(
    "--drop-duplicates",
    is_flag=True,
    help="Drop copies of a file and, of near-duplicates in different splits, the one in train.",
)
@click.option(
    "--equalise",
    is_flag=False,
    flag_value="resize",
    type=click.Choice(get_args(api.Equalisation)),
    help="Give every image one treatment, so that files do not give away the label. crop: a crop of a common size, "
    "never scaled, and a JPEG compression; images that are too small are left out. resize, or no value: a crop, a "
    "resize to a common size and a JPEG compression.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Decode every image as a check. Without it, a damaged image stops the training that reads it.",
)
@click.option(
    "--on-bad",
    default="quarantine",
    show_default=True,
    type=click.Choice(get_args(api.BadFiles)),
    help="What to do with unreadable files: list them and leave them out, or stop.",
)
@click.option(
    "--max-bad",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Maximum share of quarantined files.",
)
@click.option(
    "--max-pixels",
    default=100_000_000,
    show_default=True,
    type=click.IntRange(1),
    help="Leave out larger images, before decoding them.",
)
@click.option("--workers", type=click.IntRange(1), help="Number of processes.  [default: one per core]")
def make_tfrecords(data: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Convert the images in DATA to sharded TFRecords.

    DATA is a folder in one of these layouts; upper and lower case do not matter:

    \b
      {train,val|valid|validation,test}/{real,fake|deepfake}/{class}/NAME
      the same without {class}, without the split, or without both
      a metadata.csv with image_path, label and, if known, class, source and split
      a flat test/ without label folders becomes an unlabelled split
      test/{real,fake} alone, or one of the two: to measure a run on, ddk evaluate --records

    Usual names of real and fake, such as 0_real/1_fake below classes or nature/ai, are known; --real and --fake give
    others. Folders that occur under one label alone are taken for sources, and folders of frames for videos, which
    stay in one split: see --folders.

    Files are stored unchanged, and each is decoded once as a check. TIFF, AVIF, HEIC, 16-bit and animated images
    become PNG, of the first frame. Unreadable files are left out and listed, with the reason, in quarantine.csv.

    Earlier records are replaced once the new ones are complete. After an interruption, or even a kill, the same
    command continues where it stopped. At the end, a quick audit reports whether the files alone give away the
    labels; `ddk audit` is thorough.

    \b
    Examples:
      ddk make-tfrecords data/
      ddk make-tfrecords photos/ --val-fraction 0.1 --split-by person
      ddk make-tfrecords table/ --columns image_path=file,label=target
      ddk make-tfrecords collected/ --real photos --fake sdxl --fake flux
      ddk make-tfrecords mixed/ --equalise crop --drop-duplicates
    """
    from pipelines.records.conversion import start_workers
    from pipelines.records.store import MANIFEST

    with silence_stderr():
        start_workers()
    notes: list[str] = []
    warnings: list[str] = []
    api.convert(data, output, **options, progress=True, note=notes.append, warn=warnings.append)
    manifest = json.loads((output / MANIFEST).read_text())
    return {"folder": str(output), "notes": notes, "warnings": warnings, **manifest}
