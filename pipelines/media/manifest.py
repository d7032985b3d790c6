"""C2PA manifests (https://c2pa.org): who signed an image, whether it is what was signed, and what was claimed of it.

What a manifest proves is told apart by the codes of its validation, never by the one word that sums them up: a
certificate that ran out, a signer nobody knows, and rules that changed since say nothing against an image that is,
byte for byte, what was signed.
"""

import functools
import json
import logging
import os
import re
import ssl
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from pipelines.exceptions import DataError
from pipelines.media import jpeg

try:
    import c2pa
except ImportError:  # an extra
    c2pa = None

_log = logging.getLogger(__name__)

TRUST_LIST = "DDK_C2PA_TRUST"  # the environment variable with the path of a list of trusted signers
# IPTC's digital source types (https://cv.iptc.org/newscodes/digitalsourcetype/), by the last part of their URIs.
SOURCE_TYPES = {
    "trainedAlgorithmicMedia": "AI generated",
    "trainedAlgorithmicData": "AI generated",  # C2PA's own
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
UNCHANGED, PICTURE_UNCHANGED, CHANGED = "unchanged", "picture unchanged", "changed"
ALTERED, UNCHECKED = "manifest altered", "not checkable"
EMBEDDED, REMOTE, UNREADABLE, ABSENT = "embedded", "remote", "unreadable", "absent"
TRUSTED, UNKNOWN = "trusted", "unknown"
VALID, EXPIRED, OUTSIDE, REVOKED, UNFIT = "valid", "expired", "not valid when it signed", "revoked", "unfit"
_INTEGRITY_WORDS = {
    UNCHANGED: "content unchanged since",
    PICTURE_UNCHANGED: "picture unchanged since (its metadata are not covered)",
    CHANGED: "content changed since",
    ALTERED: "manifest altered since",
    UNCHECKED: "content cannot be checked",
}
_CERTIFICATE_WORDS = {
    EXPIRED: "certificate expired",
    OUTSIDE: "certificate not valid when it signed",
    REVOKED: "certificate revoked",
    UNFIT: "certificate not fit for signing",
}
_TRUST_WORDS = {TRUSTED: "trusted", UNKNOWN: "not known as trusted"}
_STATE_WORDS = {
    REMOTE: "kept on a server ({note}), not fetched",
    UNREADABLE: "that cannot be read ({note})",
}
_MAX_DEPTH = 8  # of ingredients of ingredients
_MAX_TOLD = 5  # actions or ingredients in a sentence


@dataclass(frozen=True)
class Standing:
    """What a validation found.

    Args:
        integrity: UNCHANGED; PICTURE_UNCHANGED, where the hash leaves out more than the manifest, but no more than
            metadata; CHANGED; ALTERED, where the manifest itself is not what was signed; or UNCHECKED.
        signer: the organization in the certificate, which proves nothing unless trusted.
        trust: TRUSTED, by the list of `TRUST_LIST`, or UNKNOWN.
        certificate: VALID when it signed, by a trusted time stamp, or today; EXPIRED, and nothing proves when it
            signed; OUTSIDE its validity when it signed; REVOKED; or UNFIT for signing.
        is_older: whether the manifest breaks rules of today's specification that its signer did not know.
    """

    integrity: str
    signer: str = ""
    trust: str = UNKNOWN
    certificate: str = VALID
    is_older: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether the image is what was signed, so that claims are those of the signer."""
        return self.integrity in (UNCHANGED, PICTURE_UNCHANGED) and self.certificate in (VALID, EXPIRED)

    def __str__(self) -> str:
        return self.describe(_INTEGRITY_WORDS[self.integrity])

    def describe(self, integrity: str) -> str:
        """Who signed, and what is to be known of it; with other words for the integrity."""
        parts = [
            f"signed by {self.signer or 'an unnamed signer'} ({_TRUST_WORDS[self.trust]})",
            integrity,
            _CERTIFICATE_WORDS.get(self.certificate, ""),
            "made to an older specification" if self.is_older else "",
        ]
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class Manifest:
    """A C2PA manifest, of an image or of an ingredient that it was made from.

    Args:
        standing: None if it is not in the file, or cannot be read.
        source_types: keys of SOURCE_TYPES.
        generator: the software that made it, as it names itself.
        actions: what was done to the image, as far as no source type says it: `opened`, `color adjustments`.
        camera: make and model in signed camera data.
        ingredients: the images that it was made from, also those without a manifest.
        inherits: whether the source types are those of its only ingredient.
        title: the name of an ingredient.
        state: EMBEDDED, REMOTE, UNREADABLE, or ABSENT from an ingredient.
        note: on which server it is, or why it cannot be read.
    """

    standing: Standing | None = None
    source_types: tuple[str, ...] = ()
    generator: str = ""
    actions: tuple[str, ...] = ()
    camera: str = ""
    ingredients: tuple["Manifest", ...] = ()
    inherits: bool = False
    title: str = ""
    state: str = EMBEDDED
    note: str = ""

    @property
    def integrity(self) -> str:
        """That of its standing; UNCHECKED without one."""
        return self.standing.integrity if self.standing else UNCHECKED

    def __str__(self) -> str:
        if self.standing is None:
            return f"C2PA manifest {_STATE_WORDS[self.state].format(note=self.note)}"
        told = [each.as_ingredient() for each in self._told_ingredients()][:_MAX_TOLD]
        made_from = "made from" if self.standing.is_sound else "before that made from"
        return "; ".join(
            [f"C2PA manifest {self.standing}{self._claims()}", *(f"{made_from} {text}" for text in told)]
        )

    def as_ingredient(self) -> str:
        """The sentence about an ingredient, whose content is not here any more."""
        title = self.title or "an image"
        if self.standing is None:
            return f"{title}, without a manifest"
        integrity = "" if self.standing.is_sound else _INTEGRITY_WORDS[self.integrity]
        return f"{title}, {self.standing.describe(integrity)}{self._claims()}"

    def _told_ingredients(self) -> Iterator["Manifest"]:
        """Those, at any depth, that claim an origin of their own."""
        for ingredient in self.ingredients:
            if ingredient.standing is None:
                continue
            claims = bool(ingredient.source_types or ingredient.camera)
            if (claims and not self.inherits) or not ingredient.standing.is_sound:
                yield ingredient
            if not ingredient.inherits:
                yield from ingredient._told_ingredients()

    def _claims(self) -> str:
        sources = dict.fromkeys(SOURCE_TYPES[source] for source in self.source_types)
        claims = [
            *sources,
            f"camera data of {self.camera}" if self.camera else "",
            f"actions {' + '.join(self.actions[:_MAX_TOLD])}" if self.actions else "",
            f"by {self.generator}" if self.generator else "",
        ]
        told = ", ".join(filter(None, claims))
        if not told or self.standing is None:
            return ""
        if self.standing.is_sound:
            return f": {told}"
        return f"; before that: {told}" if self.integrity == CHANGED else f"; claims without proof: {told}"


# --- reading ---------------------------------------------------------------------------------------------------

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


def prepare() -> None:
    """Load the C2PA library, or log that it is not installed; otherwise the first file pays for that.

    Raises:
        DataError: as `read_manifest`.
    """
    with _context_lock:
        _context()


def read_manifest(file: BinaryIO) -> Manifest | None:
    """Read and check the manifest of an image or video file, without any access to the network.

    Returns:
        None if there is none, or the library is not installed.

    Raises:
        DataError: the list of trusted signers that the environment names cannot be read.
    """
    with _context_lock:
        context = _context()
    if context is None:
        return None
    file.seek(0)
    try:
        with c2pa.Reader(None, file, None, context) as reader:
            return _Store(json.loads(reader.json()), lambda: _exclusions(reader), file).manifest()
    except c2pa.C2paError as error:
        return _manifest_of_error(error)


def clean(text: object) -> str:
    """Cut untrusted text to a few words that are safe in a table, a terminal and a page."""
    cut = str(text or "")[:200]
    return " ".join("".join(letter if letter.isprintable() else " " for letter in cut).split())[:60]


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


def _manifest_of_error(error: Exception) -> Manifest | None:
    """What a failure to read a manifest means: there is none, it is kept elsewhere, or it cannot be read."""
    reason = str(error)
    if reason.startswith("Remote"):
        server = clean(urlsplit(reason.partition(" url ")[2].strip()).hostname)
        return Manifest(state=REMOTE, note=server or "unnamed")
    # Errors about the image rather than a manifest: it has none, its format has none, or the image is damaged.
    without_manifest = (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported, c2pa.C2paError.Io)
    if isinstance(error, without_manifest) or "asset could not be parsed" in reason:
        return None
    return Manifest(state=UNREADABLE, note=clean(reason.partition(": ")[2]) or "no reason given")


def _exclusions(reader: "c2pa.Reader") -> list[tuple[int, int]]:
    """The ranges of the file that the active manifest's hash leaves out: first position and end of each."""
    store = json.loads(reader.detailed_json())
    assertions = store["manifests"][store["active_manifest"]]["assertion_store"]
    hashes = [content for label, content in assertions.items() if label.startswith("c2pa.hash.data")]
    ranges = [excluded for content in hashes for excluded in content.get("exclusions") or []]
    return [(excluded["start"], excluded["start"] + excluded["length"]) for excluded in ranges]


# --- judging ---------------------------------------------------------------------------------------------------

_CONTENT_HASH = re.compile(r"assertion\.\w+Hash\.(match|mismatch)")
_ALTERED = {
    "claimSignature.mismatch",
    "claimSignature.missing",
    "assertion.hashedURI.mismatch",
    "assertion.missing",
    "assertion.undeclared",
    "ingredient.hashedURI.mismatch",
    "ingredient.manifest.mismatch",
    "ingredient.manifest.missing",
    "ingredient.claimSignature.mismatch",
    "ingredient.claimSignature.missing",
}
_CERTIFICATE_CODES = {  # the gravest first
    "signingCredential.ocsp.revoked": REVOKED,
    "signingCredential.revoked": REVOKED,
    "signingCredential.invalid": UNFIT,
    "claimSignature.outsideValidity": OUTSIDE,
    "signingCredential.expired": EXPIRED,
}
# Rules about what a signer writes. What breaks them was signed so, and is no change.
_RULES = re.compile(
    r"assertion\.(action|metadata|ingredient|cloud-data|external-reference|timestamp|json|cbor)\."
    r"|assertion\.(notRedacted|selfRedacted)|manifest\.\w*[pP]arents|claim\.malformed|algorithm\.deprecated"
)
_NEUTRAL = re.compile(
    r"signingCredential\.|claimSignature\.outsideValidity|timeStamp\.|ingredient\.unknownProvenance"
)
_NARROWER = "exclusion does not match"  # a hash that leaves out more than the manifest, which older ones may

_Statuses = list[dict[str, Any]]


def _codes(statuses: Iterable[dict[str, Any]]) -> set[str]:
    return {str(status.get("code")) for status in statuses}


def _is_narrower(status: dict[str, Any]) -> bool:
    return str(status.get("code")).endswith("Hash.mismatch") and _NARROWER in str(status.get("explanation"))


class _Store:
    """The manifests in a file, and how their validation went, as the C2PA library tells it."""

    def __init__(self, store: dict[str, Any], exclusions: Any, file: BinaryIO):
        self._manifests: dict[str, dict] = store.get("manifests") or {}
        self._active = str(store.get("active_manifest"))
        self._results: dict[str, Any] = store.get("validation_results") or {}
        self._exclusions, self._file = exclusions, file

    def manifest(self) -> Manifest:
        """The manifest of the file itself."""
        found = self._manifests.get(self._active, {})
        active = self._results.get("activeManifest") or {}
        passed, failed = _codes(active.get("success") or []), list(active.get("failure") or [])
        narrower = [status for status in failed if _is_narrower(status)]
        others = [status for status in failed if not _is_narrower(status)]
        integrity = _integrity(_codes(others), self._content_matches(passed))
        if integrity == UNCHANGED and "claimSignature.validated" not in passed:
            integrity = UNCHECKED
        elif integrity == UNCHANGED and narrower:
            integrity = PICTURE_UNCHANGED if self._only_metadata_is_excluded() else UNCHECKED
        standing = _standing(found, integrity, passed, _codes(others) | ({"older"} if narrower else set()))
        return self._build(found, standing, depth=0)

    def _content_matches(self, passed: set[str]) -> bool:
        """Whether some hash of the content was checked; that of an update is in the manifest that it updates."""
        deltas = self._results.get("ingredientDeltas") or []
        passed_below = _codes(
            [s for delta in deltas for s in (delta.get("validationDeltas") or {}).get("success") or []]
        )
        return any(_CONTENT_HASH.fullmatch(code) for code in passed | passed_below)

    def _only_metadata_is_excluded(self) -> bool:
        end = jpeg.metadata_end(self._file)
        return all(last <= end for _, last in self._exclusions())

    def _build(self, found: dict[str, Any], standing: Standing, depth: int, title: str = "") -> Manifest:
        actions = list(_actions(found))
        data = _metadata(found)
        uris = [*(action.get("digitalSourceType") for action in actions), data.get("DigitalSourceType")]
        types = [source_type(uri) for uri in uris]
        told = tuple(dict.fromkeys(filter(None, types)))
        ingredients = tuple(self._ingredients(found, standing, depth + 1)) if depth < _MAX_DEPTH else ()
        # What was made from one image alone, by the same signer, is what that image was.
        inherits = not told and len(ingredients) == 1 and _is_of_same_signer(ingredients[0], standing)
        told = ingredients[0].source_types if inherits else told
        names = [clean(action.get("action")).removeprefix("c2pa.").replace("_", " ") for action in actions]
        return Manifest(
            standing=standing,
            source_types=told,
            generator=_generator(found),
            actions=tuple(dict.fromkeys(name for name in names if name and not (told and name in _PLAIN_ACTIONS))),
            camera=name_camera(clean(data.get("Make")), clean(data.get("Model"))),
            ingredients=ingredients,
            inherits=inherits,
            title=title,
        )

    def _ingredients(self, parent: dict[str, Any], parents: Standing, depth: int) -> Iterator[Manifest]:
        for ingredient in parent.get("ingredients") or []:
            found = self._manifests.get(str(ingredient.get("active_manifest")))
            if found is None:
                yield Manifest(title=clean(ingredient.get("title")), state=ABSENT)
            else:
                standing = self._standing_of_ingredient(parent, ingredient, found, parents)
                yield self._build(found, standing, depth, clean(ingredient.get("title")))

    def _standing_of_ingredient(
        self, parent: dict[str, Any], ingredient: dict[str, Any], found: dict[str, Any], parents: Standing
    ) -> Standing:
        """How an ingredient was when it was taken, as its taker recorded, and what is found of its manifest today.

        Its content is not here any more, so that only as much is proved of it as of the image made from it.
        """
        recorded = (ingredient.get("validation_results") or {}).get("activeManifest") or {}
        before = [*(recorded.get("failure") or []), *(ingredient.get("validation_status") or [])]
        today = self._deltas(str(parent.get("label")), str(ingredient.get("label")))
        codes = {
            code for code in _codes(status for status in before if not _is_narrower(status)) if not _is_success(code)
        }
        passed = _codes([*(recorded.get("success") or []), *today["success"]])
        # Whom the taker trusted was the taker's choice.
        if {"signingCredential.trusted", "signingCredential.untrusted"} & _codes(today["success"] + today["failure"]):
            codes -= {"signingCredential.untrusted", "signingCredential.invalid"}
        codes |= _codes(status for status in today["failure"] if not _is_narrower(status))
        integrity = _integrity(codes, is_matched=True)
        # A change of the picture leaves standing what was signed about its past.
        if integrity == UNCHANGED and not (parents.is_sound or parents.integrity == CHANGED):
            integrity = UNCHECKED
        return _standing(found, integrity, passed if parents.trust == TRUSTED else set(), codes)

    def _deltas(self, manifest: str, ingredient: str) -> dict[str, _Statuses]:
        """What today's check found of an ingredient, beyond what was recorded when it was taken."""
        suffix = f"/{manifest}/c2pa.assertions/{ingredient}"
        deltas = [
            delta.get("validationDeltas") or {}
            for delta in self._results.get("ingredientDeltas") or []
            if str(delta.get("ingredientAssertionURI")).endswith(suffix)
        ]
        active = (self._results.get("activeManifest") or {}).get("failure") or []
        broken = [
            s for s in active if str(s.get("code")).startswith("ingredient.") and str(s.get("url")).endswith(suffix)
        ]
        return {
            "success": [status for delta in deltas for status in delta.get("success") or []],
            "failure": [status for delta in deltas for status in delta.get("failure") or []] + broken,
        }


_PLAIN_ACTIONS = ("created", "opened", "converted", "published")  # of which a source type says more


def _is_success(code: str) -> bool:
    """Whether a code in a list of mixed ones, as older manifests have, tells of a check that was passed."""
    return code.endswith((".match", ".validated", ".trusted", ".insideValidity", ".notRevoked"))


def _integrity(failed: set[str], is_matched: bool) -> str:
    if failed & _ALTERED:
        return ALTERED
    if any(_CONTENT_HASH.fullmatch(code) for code in failed):
        return CHANGED
    known = all(_RULES.match(code) or _NEUTRAL.match(code) for code in failed)
    return UNCHANGED if known and is_matched else UNCHECKED


def _standing(found: dict[str, Any], integrity: str, passed: set[str], failed: set[str]) -> Standing:
    certificate = next((word for code, word in _CERTIFICATE_CODES.items() if code in failed), VALID)
    is_trusted = "signingCredential.trusted" in passed and "signingCredential.untrusted" not in failed
    return Standing(
        integrity=integrity,
        signer=clean((found.get("signature_info") or {}).get("issuer")),
        trust=TRUSTED if is_trusted and certificate in (VALID, EXPIRED) and integrity != ALTERED else UNKNOWN,
        certificate=certificate,
        is_older="older" in failed or any(_RULES.match(code) for code in failed),
    )


def _is_of_same_signer(ingredient: Manifest, standing: Standing) -> bool:
    own = ingredient.standing
    return own is not None and own.is_sound and (own.signer, own.trust) == (standing.signer, standing.trust)


# --- what a manifest claims ------------------------------------------------------------------------------------


def _assertions(manifest: dict[str, Any], label: str) -> Iterator[dict[str, Any]]:
    for assertion in manifest.get("assertions") or []:
        if str(assertion.get("label")).startswith(label) and isinstance(assertion.get("data"), dict):
            yield assertion["data"]


def _actions(manifest: dict[str, Any]) -> Iterable[dict[str, Any]]:
    found = [action for data in _assertions(manifest, "c2pa.actions") for action in data.get("actions") or []]
    return [action for action in found if isinstance(action, dict)]


def source_type(uri: object) -> str:
    """The key of SOURCE_TYPES that a URI names; empty if it names none."""
    name = str(uri or "").rpartition("/")[2].strip()
    return name if name in SOURCE_TYPES else ""


def _generator(manifest: dict[str, Any]) -> str:
    for information in manifest.get("claim_generator_info") or []:
        return clean(f"{information.get('name') or ''} {information.get('version') or ''}")
    # Older manifests name it as browsers do: Adobe_Photoshop/25.0 adobe_c2pa/0.9
    return clean(str(manifest.get("claim_generator") or "").partition(" ")[0].replace("_", " ").replace("/", " "))


def _metadata(manifest: dict[str, Any]) -> dict[str, Any]:
    """Signed tags by name, without the prefix: `tiff:` by the specification, `EXIF:` in older manifests."""
    return {
        str(name).rpartition(":")[2]: value
        for label in ("stds.exif", "stds.iptc", "c2pa.metadata", "cawg.metadata")
        for data in _assertions(manifest, label)
        for name, value in data.items()
    }


def name_camera(make: str, model: str) -> str:
    """Make and model, with the make once."""
    brand = make.partition(" ")[0].casefold()
    return model if brand and model.casefold().startswith(brand) else f"{make} {model}".strip()
