"""What a file states about its origin: by a C2PA manifest, which is signed, and by tags, which anyone can write.

It is reported beside a score and never enters it: a detector that reads tags is fooled by deleting them.
"""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.media.headers import JPEG_SIGNATURE, UnreadableError, read_file
from pipelines.media.manifest import (
    SOURCE_TYPES,
    Manifest,
    clean,
    name_camera,
    read_manifest,
    source_type,
)
from pipelines.media.metadata import STEALTH, Metadata, read_metadata
from pipelines.media.video import is_video

# --- what a file states ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Provenance:
    """What a file states about its origin. As text it is one short sentence, empty if the file states nothing.

    Args:
        manifest: its C2PA manifest.
        tags: the claims of tags, each with where it was found: `Midjourney (EXIF Software, XMP CreatorTool)`.
        camera: make and model by EXIF or XMP; at least the lens.
        software: what wrote the file, by EXIF or XMP, if it is not a generator.
        source_type: the digital source type in XMP, see `manifest.SOURCE_TYPES`.
        has_gain_map: whether there is a gain map beside the image, which makes it HDR.
        has_motion_photo: whether there is a short video behind the image.
    """

    manifest: Manifest | None = None
    tags: tuple[str, ...] = ()
    camera: str = ""
    software: str = ""
    source_type: str = ""
    has_gain_map: bool = False
    has_motion_photo: bool = False

    def __str__(self) -> str:
        tags = [
            *self.tags,
            *([f"camera: {self.camera}"] if self.camera else []),
            *([f"software: {self.software}"] if self.software else []),
            *(["a gain map"] if self.has_gain_map else []),
            *(["a motion photo"] if self.has_motion_photo else []),
        ]
        claims = f"tags, which anyone can write: {', '.join(tags)}" if tags else ""
        return "; ".join(part for part in (str(self.manifest or ""), claims) if part)

    def fields(self) -> dict[str, Any]:
        """The same as values for programs, by the names in `FIELDS`; those of a manifest that is absent are None."""
        manifest = self.manifest or Manifest()
        standing = manifest.standing
        return {
            "manifest": self.manifest.state if self.manifest else None,
            "integrity": self.manifest.integrity if self.manifest else None,
            "signer": standing.signer if standing else None,
            "trust": standing.trust if standing else None,
            "certificate": standing.certificate if standing else None,
            "specification": ("older" if standing.is_older else "current") if standing else None,
            "digitalSourceType": next(iter(manifest.source_types), self.source_type) or None,
            "tool": manifest.generator or self.software or None,
            "ingredients": [ingredient.as_ingredient() for ingredient in manifest.ingredients],
            "gainMap": self.has_gain_map,
            "motionPhoto": self.has_motion_photo,
        }


# The names and types of `Provenance.fields`.
FIELDS: dict[str, type] = {
    "manifest": str,
    "integrity": str,
    "signer": str,
    "trust": str,
    "certificate": str,
    "specification": str,
    "digitalSourceType": str,
    "tool": str,
    "ingredients": list,
    "gainMap": bool,
    "motionPhoto": bool,
}


def read_provenance(source: Path | bytes) -> Provenance:
    """Read what an image or video file states about its origin.

    Args:
        source: the file, or its content.

    Raises:
        OSError: the file cannot be read. Its content never raises, whatever is wrong with it.
        DataError: the list of trusted signers that the environment names cannot be read.
    """
    if isinstance(source, bytes) and _is_bare_jpeg(source):
        return Provenance()
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        metadata = read_metadata(file)
        claims: dict[str, list[str]] = {}
        for claim, place in _tags(metadata):
            claims.setdefault(claim, []).append(place)
        return Provenance(
            manifest=read_manifest(file),
            tags=tuple(f"{claim} ({', '.join(places)})" for claim, places in claims.items()),
            camera=_camera(metadata),
            software=_software(metadata),
            source_type=_source_type(metadata),
            has_gain_map=metadata.has_gain_map,
            has_motion_photo=metadata.has_motion_photo,
        )


def provenance_of(path: Path) -> Provenance:
    """The provenance of a file; that of nothing if the file cannot be read, which scoring it reports."""
    with contextlib.suppress(OSError, UnreadableError):
        if is_video(path):
            return read_provenance(path) if path.is_file() else Provenance()  # opening a pipe would block
        return read_provenance(read_file(path))
    return Provenance()


def _is_bare_jpeg(content: bytes) -> bool:
    """Whether this is a JPEG without EXIF or XMP (APP1), gain map (APP2), C2PA (APP11) and IPTC (APP13).

    Most small ones are, and this check takes a twentieth of the time of asking each library.
    """
    return content.startswith(JPEG_SIGNATURE) and not _METADATA_SEGMENT.search(content)


# One expression that begins with a byte that is rare among pixels: a search for each marker takes five times as long.
_METADATA_SEGMENT = re.compile(rb"\xff(?:[\xe1\xeb\xed]|\xe2..(?:MPF\0|urn:iso:std:iso:ts:21496))", re.DOTALL)


# --- tags ------------------------------------------------------------------------------------------------------

_XMP_PROPERTIES = {
    "CreatorTool": "{http://ns.adobe.com/xap/1.0/}CreatorTool",
    "Credit": "{http://ns.adobe.com/photoshop/1.0/}Credit",
    "DigitalSourceType": "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType",
    "DigitalSourceFileType": "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceFileType",  # its older name
    "DigitalSourcefileType": "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourcefileType",
    "AISystemUsed": "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}AISystemUsed",
    "description": "{http://purl.org/dc/elements/1.1/}description",
}
_SOURCE_TYPE_NAMES = ("DigitalSourceType", "DigitalSourceFileType", "DigitalSourcefileType")
# Names that mean nothing but a generator, in fields that software or an agency signs. "Imagen", "Runway" or
# "Firefly" alone are too common as words and names.
_GENERATORS = re.compile(
    r"\b(midjourney|niji ?journey|dall[-·. ]?e|openai|chatgpt|gpt-image|stable[ _-]?diffusion|stability ?ai|sdxl"
    r"|comfyui|invoke ?ai|novelai|automatic1111|fooocus|swarmui|draw things|easy diffusion|adobe firefly"
    r"|black forest labs|flux\.1|google ai|ideogram|leonardo\.ai|bing image creator|craiyon|nightcafe|dreamstudio)\b",
    re.IGNORECASE,
)
# What generators write into free text, where a mere name may be about anything.
_WEB_UI = re.compile(r"\bSteps: \d+, (Sampler|Schedule type|CFG scale|Seed): ")
_DREAM = re.compile(r"(?:^| )-([sS]) ?\d")  # InvokeAI's older command line has steps and seed
_MIDJOURNEY = re.compile(r"\bJob ID: [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def _tags(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """What tags claim, each with the name of the tag."""
    xmp = {name: metadata.xmp.get(path, "") for name, path in _XMP_PROPERTIES.items()}
    for name in _SOURCE_TYPE_NAMES:
        if source := source_type(xmp[name]):
            yield SOURCE_TYPES[source], f"XMP {name}"
    if system := clean(xmp["AISystemUsed"]):
        yield system, "XMP AISystemUsed"
    signatures = (
        ("EXIF Software", metadata.exif.get("Software", "")),
        ("XMP CreatorTool", xmp["CreatorTool"]),
        ("XMP Credit", xmp["Credit"]),
        *((f"IPTC {name}", metadata.iptc.get(name, "")) for name in ("Credit", "OriginatingProgram")),
        *((f"PNG text {name}", metadata.texts.get(name, "")) for name in ("Software", "Source")),
    )
    yield from ((clean(name), place) for place, name in signatures if _GENERATORS.search(name[:200]))
    free_texts = (
        *((f"EXIF {name}", metadata.exif.get(name, "")) for name in ("ImageDescription", "UserComment")),
        ("XMP description", xmp["description"]),
        ("IPTC Caption", metadata.iptc.get("Caption", "")),
        *((f"PNG text {name}", metadata.texts.get(name, "")) for name in ("parameters", "Description")),
        ("GIF comment", metadata.texts.get("comment", "")),
        ("alpha channel", metadata.texts.get(STEALTH, "")),
    )
    yield from ((name, place) for place, text in free_texts if (name := _generator_of_text(text)))
    yield from _generators_by_structure(metadata)


def _generator_of_text(text: str) -> str:
    """The generator whose form a free text has; empty for what anyone may have written."""
    if _MIDJOURNEY.search(text):
        return "Midjourney"
    settings = _json_object(text)
    if "sui_image_params" in settings:
        return "SwarmUI"
    if {"base_model", "full_prompt", "adm_guidance"} <= settings.keys():
        return "Fooocus"
    if _GENERATORS.search(str(settings.get("Software"))[:200]):  # NovelAI hides all its texts as one
        return clean(settings["Software"])
    return "Stable Diffusion web UI" if _WEB_UI.search(text) else ""


def _generators_by_structure(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """Generators that store a structure of their own: a workflow graph, or all settings."""
    graphs = {f"PNG text {name}": metadata.texts.get(name, "") for name in ("prompt", "workflow")}
    for name in ("Make", "Model"):  # in WebP, which has no text chunks: `prompt:{...}`
        graphs[f"EXIF {name}"] = metadata.exif.get(name, "").partition(":")[2]
    yield from (("ComfyUI", place) for place, graph in graphs.items() if _is_comfyui_graph(_json_object(graph)))
    for name in ("invokeai_metadata", "sd-metadata"):
        if _json_object(metadata.texts.get(name, "")):
            yield "InvokeAI", f"PNG text {name}"
    prompt, _, options = metadata.texts.get("Dream", "").rpartition('" ')
    if prompt.startswith('"') and {"s", "S"} <= set(_DREAM.findall(options)):
        yield "InvokeAI", "PNG text Dream"
    if "fooocus_scheme" in metadata.texts:
        yield "Fooocus", "PNG text fooocus_scheme"
    if metadata.exif.get("MakerNote") in ("fooocus", "a1111"):
        yield "Fooocus", "EXIF MakerNote"


def _json_object(text: str) -> dict:
    """Parse a JSON object; empty for any other text."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def _is_comfyui_graph(graph: dict) -> bool:
    """Whether this is a ComfyUI prompt (nodes by number) or workflow (a list of nodes)."""
    nodes, key = (graph["nodes"], "type") if "nodes" in graph else (list(graph.values()), "class_type")
    return isinstance(nodes, list) and bool(nodes) and all(isinstance(node, dict) and key in node for node in nodes)


def _source_type(metadata: Metadata) -> str:
    found = (source_type(metadata.xmp.get(_XMP_PROPERTIES[name])) for name in _SOURCE_TYPE_NAMES)
    return next(filter(None, found), "")


def _software(metadata: Metadata) -> str:
    """What wrote the file, unless that is a generator, which `_tags` names, or no name but a version of firmware."""
    names = (metadata.xmp.get(_XMP_PROPERTIES["CreatorTool"], ""), metadata.exif.get("Software", ""))
    named = (
        clean(name)
        for name in names
        if re.search(r"\b[^\W\d_]{3,}\b", name[:200]) and not _GENERATORS.search(name[:200])
    )
    return next(named, "")


def _camera(metadata: Metadata) -> str:
    make, model = (
        clean(metadata.exif.get(name, "") or metadata.xmp.get(f"{{http://ns.adobe.com/tiff/1.0/}}{name}", ""))
        for name in ("Make", "Model")
    )
    if "{" in make + model:  # not a camera but a workflow, see `_generators_by_structure`
        return ""
    # Editors may keep nothing but the lens.
    return name_camera(make, model) or next((f"lens {lens}" for lens in _lenses(metadata) if lens), "")


def _lenses(metadata: Metadata) -> Iterator[str]:
    for name in ("{http://ns.adobe.com/exif/1.0/aux/}Lens", "{http://cipa.jp/exif/1.0/}LensModel"):
        yield clean(metadata.xmp.get(name, ""))
    yield clean(metadata.exif.get("LensModel", ""))
