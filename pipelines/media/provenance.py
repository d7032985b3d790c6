"""What a file states about its origin: by a C2PA manifest, which is signed, and by tags, which anyone can write.

It is reported beside a score and never enters it: a detector that reads tags is fooled by deleting them.
"""

import contextlib
import functools
import io
import json
import logging
import os
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.exceptions import DataError
from pipelines.media.headers import JPEG_SIGNATURE, UnreadableError, read_file
from pipelines.media.metadata import Metadata, read_metadata
from pipelines.media.video import is_video

try:
    import c2pa
except ImportError:  # an extra
    c2pa = None

_log = logging.getLogger(__name__)

TRUSTED = "signature valid, signer trusted"
UNTRUSTED = "signature valid, signer not known as trusted"
CHANGED = "invalid: changed since it was signed"
INVALID = "invalid: damaged, or not properly signed"
ELSEWHERE = "kept on a server, not fetched"
TRUST_LIST = "DDK_C2PA_TRUST"  # the environment variable with the path of a list of trusted signers
# IPTC's digital source types (https://cv.iptc.org/newscodes/digitalsourcetype/), by the last part of their URIs.
SOURCE_TYPES = {
    "trainedAlgorithmicMedia": "AI generated",
    "compositeWithTrainedAlgorithmicMedia": "edited with generative AI",
    "compositeSynthetic": "composite with generated parts",
    "algorithmicMedia": "made by an algorithm",
    "algorithmicallyEnhanced": "enhanced by an algorithm",
    "dataDrivenMedia": "drawn from data",
    "virtualRecording": "recorded in a virtual place",
    "screenCapture": "captured from a screen",
    "digitalCreation": "made by a person with software",
    "digitalArt": "made by a person with software",
    "humanEdits": "edited by a person",
    "minorHumanEdits": "edited by a person",
    "composite": "composite",
    "compositeCapture": "composite of photos",
    "digitalCapture": "captured by a camera",
    "computationalCapture": "captured by a camera",
    "negativeFilm": "scanned from film",
    "positiveFilm": "scanned from film",
    "print": "scanned from paper",
}

# --- what a file states ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manifest:
    """A C2PA manifest.

    Args:
        state: TRUSTED, UNTRUSTED, CHANGED, INVALID or ELSEWHERE.
        sources: values of SOURCE_TYPES, for the image and what it was made from, without repetition.
        generator: the software that made the manifest, as it names itself.
    """

    state: str
    sources: tuple[str, ...] = ()
    generator: str = ""

    def __str__(self) -> str:
        claims = [*self.sources, *([f"by {self.generator}"] if self.generator else [])]
        return f"C2PA manifest ({self.state})" + (f": {', '.join(claims)}" if claims else "")


@dataclass(frozen=True)
class Provenance:
    """What a file states about its origin. As text it is one short sentence, empty if the file states nothing.

    Args:
        manifest: its C2PA manifest.
        tags: the claims of tags, each with where it was found: `Midjourney (EXIF Software, XMP CreatorTool)`.
        camera: make and model by EXIF.
    """

    manifest: Manifest | None = None
    tags: tuple[str, ...] = ()
    camera: str = ""

    def __str__(self) -> str:
        tags = [*self.tags, *([f"camera: {self.camera}"] if self.camera else [])]
        claims = f"tags, which anyone can write: {', '.join(tags)}" if tags else ""
        return "; ".join(part for part in (str(self.manifest or ""), claims) if part)


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
        places_by_claim: dict[str, list[str]] = {}
        for claim, place in _tags(metadata):
            places_by_claim.setdefault(claim, []).append(place)
        tags = tuple(f"{claim} ({', '.join(places)})" for claim, places in places_by_claim.items())
        return Provenance(_read_manifest(file), tags, _camera(metadata))


def format_provenance(path: Path) -> str:
    """The provenance of a file as a sentence; empty if the file cannot be read, which scoring it reports."""
    with contextlib.suppress(OSError, UnreadableError):
        if is_video(path):
            return str(read_provenance(path)) if path.is_file() else ""  # opening a pipe would block
        return str(read_provenance(read_file(path)))
    return ""


def prepare() -> None:
    """Load the C2PA library, or log that it is not installed; otherwise the first file pays for that.

    Raises:
        DataError: as `read_provenance`.
    """
    with _context_lock:
        _context()


def _is_bare_jpeg(content: bytes) -> bool:
    """Whether this is a JPEG without a segment for EXIF or XMP (APP1) or for C2PA (APP11).

    Most small ones are, and this check takes a twentieth of the time of asking each library.
    """
    return content.startswith(JPEG_SIGNATURE) and b"\xff\xe1" not in content and b"\xff\xeb" not in content


def _clean(text: str) -> str:
    """Cut untrusted text to a few words that are safe in a table, a terminal and a page."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:200]).split())[:60]


# --- C2PA ------------------------------------------------------------------------------------------------------

_context_lock = threading.Lock()
# Extended key usages that a signer's certificate may have. Without this list the library accepts those for e-mail
# alone, and calls invalid what cameras and generators sign by C2PA's own rules.
_KEY_USAGES = {
    "e-mail protection": "1.3.6.1.5.5.7.3.4",
    "document signing": "1.3.6.1.5.5.7.3.36",
    "time stamping": "1.3.6.1.5.5.7.3.8",
    "OCSP signing": "1.3.6.1.5.5.7.3.9",
    "C2PA signing at Microsoft": "1.3.6.1.4.1.311.76.59.1.9",
    "C2PA signing": "1.3.6.1.4.1.62558.2.1",
}


@functools.cache
def _context() -> "c2pa.Context | None":
    """The settings for reading manifests, without any access to the network; None if the library is missing."""
    if c2pa is None:
        _log.info('C2PA manifests are not read; to read them: pip install "ddkeras[provenance]"')
        return None
    verify = {"remote_manifest_fetch": False, "ocsp_fetch": False}
    trust = {"trust_config": "\n".join(_KEY_USAGES.values())} | _trust_anchors()
    return c2pa.Context.from_dict({"verify": verify, "trust": trust})


def _trust_anchors() -> dict[str, str]:
    if not (path := os.environ.get(TRUST_LIST)):
        return {}
    try:
        certificates = Path(path).read_text("ascii", "ignore")  # comments may hold names
        # With a broken list the C2PA library would silently trust nobody.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{TRUST_LIST} names {path}, which is not a file of PEM certificates; give one, or unset it"
        ) from error
    return {"trust_anchors": certificates}


def _read_manifest(file: BinaryIO) -> Manifest | None:
    with _context_lock:
        context = _context()
    if context is None:
        return None
    file.seek(0)
    try:
        with c2pa.Reader(None, file, None, context) as reader:
            store = json.loads(reader.json())
    except c2pa.C2paError as error:
        return _manifest_of_error(error)
    return Manifest(_state(store), _sources(store), _generator(store))


def _manifest_of_error(error: Exception) -> Manifest | None:
    """What a failure to read a manifest means: there is none, it is kept elsewhere, or it is broken."""
    if str(error).startswith("Remote"):
        return Manifest(ELSEWHERE)
    # Errors about the image rather than a manifest: it has none, its format has none, or the image is damaged.
    without_manifest = (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported, c2pa.C2paError.Io)
    if isinstance(error, without_manifest) or "asset could not be parsed" in str(error):
        return None
    return Manifest(INVALID)


def _state(store: dict) -> str:
    state = {"Trusted": TRUSTED, "Valid": UNTRUSTED}.get(store.get("validation_state", ""))
    codes = [str(status.get("code")) for status in store.get("validation_status") or []]
    return state or (CHANGED if any(code.endswith(".mismatch") for code in codes) else INVALID)


def _manifests(store: dict) -> Iterator[dict]:
    """The manifest of the image, then those of its ingredients."""
    manifests = store.get("manifests") or {}
    active = store.get("active_manifest")
    yield from (manifests[label] for label in sorted(manifests, key=lambda label: label != active))


def _sources(store: dict) -> tuple[str, ...]:
    assertions = [assertion for manifest in _manifests(store) for assertion in manifest.get("assertions") or []]
    actions = [
        action
        for assertion in assertions
        if str(assertion.get("label")).startswith("c2pa.actions") and isinstance(assertion.get("data"), dict)
        for action in assertion["data"].get("actions") or []
    ]
    sources = [_source_type(str(action.get("digitalSourceType", ""))) for action in actions]
    return tuple(dict.fromkeys(filter(None, sources)))


def _source_type(uri: str) -> str:
    return SOURCE_TYPES.get(uri.rpartition("/")[2].strip(), "")


def _generator(store: dict) -> str:
    manifest = next(_manifests(store), {})
    for information in manifest.get("claim_generator_info") or []:
        return _clean(f"{information.get('name') or ''} {information.get('version') or ''}")
    # Older manifests name it as browsers do: Adobe_Photoshop/25.0 adobe_c2pa/0.9
    return _clean(str(manifest.get("claim_generator") or "").partition(" ")[0].replace("_", " ").replace("/", " "))


# --- tags ------------------------------------------------------------------------------------------------------

_XMP_PROPERTIES = {
    "CreatorTool": "{http://ns.adobe.com/xap/1.0/}CreatorTool",
    "Credit": "{http://ns.adobe.com/photoshop/1.0/}Credit",
    "DigitalSourceType": "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType",
    "AISystemUsed": "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}AISystemUsed",
    "description": "{http://purl.org/dc/elements/1.1/}description",
}
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
_MIDJOURNEY = re.compile(r"\bJob ID: [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def _tags(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """What tags claim, each with the name of the tag."""
    xmp = {name: metadata.xmp.get(path, "") for name, path in _XMP_PROPERTIES.items()}
    if source := _source_type(xmp["DigitalSourceType"]):
        yield source, "XMP DigitalSourceType"
    if system := _clean(xmp["AISystemUsed"]):
        yield system, "XMP AISystemUsed"
    signatures = (
        ("EXIF Software", metadata.exif.get("Software", "")),
        ("XMP CreatorTool", xmp["CreatorTool"]),
        ("XMP Credit", xmp["Credit"]),
        *((f"PNG text {name}", metadata.texts.get(name, "")) for name in ("Software", "Source")),
    )
    yield from ((_clean(name), place) for place, name in signatures if _GENERATORS.search(name[:200]))
    free_texts = (
        *((f"EXIF {name}", metadata.exif.get(name, "")) for name in ("ImageDescription", "UserComment")),
        ("XMP description", xmp["description"]),
        *((f"PNG text {name}", metadata.texts.get(name, "")) for name in ("parameters", "Description")),
    )
    yield from ((name, place) for place, text in free_texts if (name := _generator_of_text(text)))
    yield from _generators_by_structure(metadata)


def _generator_of_text(text: str) -> str:
    """The generator whose form a free text has; empty for what anyone may have written."""
    if _MIDJOURNEY.search(text):
        return "Midjourney"
    if "sui_image_params" in _json_object(text):
        return "SwarmUI"
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
    if "fooocus_scheme" in metadata.texts:
        yield "Fooocus", "PNG text fooocus_scheme"


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


def _camera(metadata: Metadata) -> str:
    make, model = (_clean(metadata.exif.get(name, "")) for name in ("Make", "Model"))
    if "{" in make + model:  # not a camera but a workflow, see `_generators_by_structure`
        return ""
    return model if model.casefold().startswith(make.casefold()) else f"{make} {model}".strip()
