"""What a file says of where its image comes from: a C2PA manifest, which is signed, and tags, which anyone can write.

It stands beside a score and never enters it: a detector that reads tags is fooled by deleting them.
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
from pipelines.media.headers import UnreadableError, read_file
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
INVALID = "invalid: damaged, or not signed as it must be"
ELSEWHERE = "kept on a server, not fetched"
TRUST_LIST = "DDK_C2PA_TRUST"  # the environment variable that names it
# IPTC's digital source types (https://cv.iptc.org/newscodes/digitalsourcetype/), by the ends of their addresses.
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

# --- what was found --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manifest:
    """A C2PA manifest.

    Args:
        state: TRUSTED, UNTRUSTED, CHANGED, INVALID or ELSEWHERE.
        sources: values of SOURCE_TYPES, of the image and of what it was made from, without repetition.
        generator: what made the manifest, by its own account.
    """

    state: str
    sources: tuple[str, ...] = ()
    generator: str = ""

    def __str__(self) -> str:
        said = [*self.sources, *([f"by {self.generator}"] if self.generator else [])]
        return f"C2PA manifest ({self.state})" + (f": {', '.join(said)}" if said else "")


@dataclass(frozen=True)
class Provenance:
    """What a file says of its origin; as text one short sentence, empty where it says nothing.

    Args:
        manifest: its C2PA manifest.
        tags: what tags say, each with its places: `Midjourney (EXIF Software, XMP CreatorTool)`.
        camera: maker and model by EXIF.
    """

    manifest: Manifest | None = None
    tags: tuple[str, ...] = ()
    camera: str = ""

    def __str__(self) -> str:
        tags = [*self.tags, *([f"camera: {self.camera}"] if self.camera else [])]
        claims = f"tags, which anyone can write: {', '.join(tags)}" if tags else ""
        return "; ".join(part for part in (str(self.manifest or ""), claims) if part)


def provenance(source: Path | bytes) -> Provenance:
    """Read what a file says of the origin of its image, or a video of its own.

    Args:
        source: the file, or its content.

    Raises:
        OSError: it cannot be read. Nothing that is wrong with its content raises.
        DataError: the environment names a list of trusted signers that cannot be read.
    """
    if isinstance(source, bytes) and _is_bare_jpeg(source):
        return Provenance()
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        metadata, places = read_metadata(file), {}
        for what, place in _tags(metadata):
            places.setdefault(what, []).append(place)
        tags = tuple(f"{what} ({', '.join(where)})" for what, where in places.items())
        return Provenance(_manifest(file), tags, _camera(metadata))


def described(path: Path) -> str:
    """The sentence on a file; empty as well where it cannot be read or is too large, which whoever scores it says."""
    with contextlib.suppress(OSError, UnreadableError):
        if is_video(path):
            return str(provenance(path)) if path.is_file() else ""  # a pipe would be waited for
        return str(provenance(read_file(path)))
    return ""


def _is_bare_jpeg(content: bytes) -> bool:
    """Whether it is a JPEG without a segment for EXIF or XMP (APP1) or for C2PA (APP11).

    Most small ones are, and to be told so takes a twentieth of the time of a look by each library.
    """
    return content.startswith(b"\xff\xd8\xff") and b"\xff\xe1" not in content and b"\xff\xeb" not in content


def prepare() -> None:
    """Load what reads manifests, and say so where there is nothing that does; else the first file has it done.

    Raises:
        DataError: as `provenance`.
    """
    with _loading:
        _context()


def _clean(text: str) -> str:
    """Somebody's text as a few words that harm no table, terminal or page."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:200]).split())[:60]


# --- C2PA ------------------------------------------------------------------------------------------------------

_loading = threading.Lock()
# Of certificates that may sign. Unless they are listed, the library takes those for mail alone, and calls invalid
# what cameras and generators sign by C2PA's own rules.
_PURPOSES = {
    "mail": "1.3.6.1.5.5.7.3.4",
    "documents": "1.3.6.1.5.5.7.3.36",
    "time stamps": "1.3.6.1.5.5.7.3.8",
    "revocation": "1.3.6.1.5.5.7.3.9",
    "C2PA at Microsoft": "1.3.6.1.4.1.311.76.59.1.9",
    "C2PA": "1.3.6.1.4.1.62558.2.1",
}


@functools.cache
def _context() -> "c2pa.Context | None":
    """How manifests are read: without asking the network for anything."""
    if c2pa is None:
        _log.info('C2PA manifests are not looked at; to have them: pip install "ddkeras[provenance]"')
        return None
    verify = {"remote_manifest_fetch": False, "ocsp_fetch": False}
    trust = {"trust_config": "\n".join(_PURPOSES.values())} | _trusted()
    return c2pa.Context.from_dict({"verify": verify, "trust": trust})


def _trusted() -> dict[str, str]:
    if not (path := os.environ.get(TRUST_LIST)):
        return {}
    try:
        listed = Path(path).read_text("ascii", "ignore")  # comments may hold names
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=listed)  # or one broken trusts nobody
    except (OSError, ValueError) as error:
        raise DataError(
            f"{TRUST_LIST} names {path}, which is no file of PEM certificates; give one, or unset it"
        ) from error
    return {"trust_anchors": listed}


def _manifest(file: BinaryIO) -> Manifest | None:
    with _loading:
        context = _context()
    if context is None:
        return None
    file.seek(0)
    try:
        with c2pa.Reader(None, file, None, context) as reader:
            store = json.loads(reader.json())
    except c2pa.C2paError as error:
        return _unread(error)
    return Manifest(_state(store), _sources(store), _generator(store))


def _unread(error: Exception) -> Manifest | None:
    """What it means that no manifest could be read: there is none, none here, or a broken one."""
    if str(error).startswith("Remote"):
        return Manifest(ELSEWHERE)
    # Of the image, not of a manifest: it has none, is of a kind that has none, or is itself damaged.
    of_image = (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported, c2pa.C2paError.Io)
    if isinstance(error, of_image) or "asset could not be parsed" in str(error):
        return None
    return Manifest(INVALID)


def _state(store: dict) -> str:
    state = {"Trusted": TRUSTED, "Valid": UNTRUSTED}.get(store.get("validation_state"))
    codes = [str(status.get("code")) for status in store.get("validation_status") or []]
    return state or (CHANGED if any(code.endswith(".mismatch") for code in codes) else INVALID)


def _manifests(store: dict) -> Iterator[dict]:
    """The manifest of the image, then those of what it was made from."""
    manifests = store.get("manifests") or {}
    active = store.get("active_manifest")
    yield from (manifests[label] for label in sorted(manifests, key=lambda label: label != active))


def _sources(store: dict) -> tuple[str, ...]:
    assertions = [one for manifest in _manifests(store) for one in manifest.get("assertions") or []]
    actions = [
        action
        for assertion in assertions
        if str(assertion.get("label")).startswith("c2pa.actions") and isinstance(assertion.get("data"), dict)
        for action in assertion["data"].get("actions") or []
    ]
    named = [_source_type(str(action.get("digitalSourceType", ""))) for action in actions]
    return tuple(dict.fromkeys(filter(None, named)))


def _source_type(address: str) -> str:
    return SOURCE_TYPES.get(address.rpartition("/")[2].strip(), "")


def _generator(store: dict) -> str:
    manifest = next(_manifests(store), {})
    for information in manifest.get("claim_generator_info") or []:
        return _clean(f"{information.get('name') or ''} {information.get('version') or ''}")
    # As older manifests name it, like a browser: Adobe_Photoshop/25.0 adobe_c2pa/0.9
    return _clean(str(manifest.get("claim_generator") or "").partition(" ")[0].replace("_", " ").replace("/", " "))


# --- tags ------------------------------------------------------------------------------------------------------

_XMP = {
    "CreatorTool": "{http://ns.adobe.com/xap/1.0/}CreatorTool",
    "Credit": "{http://ns.adobe.com/photoshop/1.0/}Credit",
    "DigitalSourceType": "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType",
    "AISystemUsed": "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}AISystemUsed",
    "description": "{http://purl.org/dc/elements/1.1/}description",
}
# Names that stand for nothing else, as they occur where software or an agency signs. "Imagen", "Runway" or "Firefly"
# alone are too common as words and names.
_GENERATORS = re.compile(
    r"\b(midjourney|niji ?journey|dall[-·. ]?e|openai|chatgpt|gpt-image|stable[ _-]?diffusion|stability ?ai|sdxl"
    r"|comfyui|invoke ?ai|novelai|automatic1111|fooocus|swarmui|draw things|easy diffusion|adobe firefly"
    r"|black forest labs|flux\.1|google ai|ideogram|leonardo\.ai|bing image creator|craiyon|nightcafe|dreamstudio)\b",
    re.IGNORECASE,
)
# What generators write into free text, where their names alone may be about anything.
_WEB_UI = re.compile(r"\bSteps: \d+, (Sampler|Schedule type|CFG scale|Seed): ")
_MIDJOURNEY = re.compile(r"\bJob ID: [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def _tags(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """What a tag says, and which one."""
    xmp = {name: metadata.xmp.get(path, "") for name, path in _XMP.items()}
    if source := _source_type(xmp["DigitalSourceType"]):
        yield source, "XMP DigitalSourceType"
    if system := _clean(xmp["AISystemUsed"]):
        yield system, "XMP AISystemUsed"
    signed = (
        ("EXIF Software", metadata.exif.get("Software", "")),
        ("XMP CreatorTool", xmp["CreatorTool"]),
        ("XMP Credit", xmp["Credit"]),
        *((f"PNG text {name}", metadata.texts.get(name, "")) for name in ("Software", "Source")),
    )
    yield from ((_clean(name), place) for place, name in signed if _GENERATORS.search(name[:200]))
    written = (
        *((f"EXIF {name}", metadata.exif.get(name, "")) for name in ("ImageDescription", "UserComment")),
        ("XMP description", xmp["description"]),
        *((f"PNG text {name}", metadata.texts.get(name, "")) for name in ("parameters", "Description")),
    )
    yield from ((name, place) for place, text in written if (name := _author(text)))
    yield from _by_shape(metadata)


def _author(text: str) -> str:
    """The generator whose hand a free text is in; empty for what anyone may have written."""
    if _MIDJOURNEY.search(text):
        return "Midjourney"
    if "sui_image_params" in _object(text):
        return "SwarmUI"
    return "Stable Diffusion web UI" if _WEB_UI.search(text) else ""


def _by_shape(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """Generators by what they alone store: the graph that made the image, or all that went into it."""
    graphs = {f"PNG text {name}": metadata.texts.get(name, "") for name in ("prompt", "workflow")}
    for name in ("Make", "Model"):  # in WebP, which has no texts: `prompt:{...}`
        graphs[f"EXIF {name}"] = metadata.exif.get(name, "").partition(":")[2]
    yield from (("ComfyUI", place) for place, graph in graphs.items() if _is_graph(_object(graph)))
    for name in ("invokeai_metadata", "sd-metadata"):
        if _object(metadata.texts.get(name, "")):
            yield "InvokeAI", f"PNG text {name}"
    if "fooocus_scheme" in metadata.texts:
        yield "Fooocus", "PNG text fooocus_scheme"


def _object(text: str) -> dict:
    """A JSON object, empty for any other text."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def _is_graph(found: dict) -> bool:
    """Whether it is a ComfyUI prompt, nodes by number, or a workflow, a list of them."""
    nodes, key = (found["nodes"], "type") if "nodes" in found else (list(found.values()), "class_type")
    return isinstance(nodes, list) and bool(nodes) and all(isinstance(node, dict) and key in node for node in nodes)


def _camera(metadata: Metadata) -> str:
    make, model = (_clean(metadata.exif.get(name, "")) for name in ("Make", "Model"))
    if "{" in make + model:  # no camera, see above
        return ""
    return model if model.casefold().startswith(make.casefold()) else f"{make} {model}".strip()
