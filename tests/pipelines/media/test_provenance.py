"""What a file states about its origin: read from its proper place only, and never part of a score."""

import dataclasses
import datetime
import io
import json
import os
import socket
import time
import zlib

import av
import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from tiny import encode

from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import scorer_for_run
from pipelines.exceptions import DataError
from pipelines.media import provenance
from pipelines.media.headers import MAX_FILE_BYTES
from pipelines.media.provenance import Provenance, format_provenance, read_provenance

PARAMETERS = "a red fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
PROMPT = json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 1}}})
WORKFLOW = json.dumps({"nodes": [{"id": 3, "type": "KSampler"}], "links": []})
JOB = "a red fox --v 6 Job ID: 01234567-89ab-cdef-0123-456789abcdef"
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TAGS = "tags, which anyone can write: "


def saved(kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "green").save(buffer, kind, **options)
    return buffer.getvalue()


def exif(comment: bytes = b"", **tags: str) -> Image.Exif:
    found = Image.Exif()
    for name, value in tags.items():
        found[ExifTags.Base[name]] = value
    if comment:
        found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return found


def xmp(properties: str = "", attributes: str = "") -> bytes:
    names = {
        "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "xmp": "http://ns.adobe.com/xap/1.0/",
        "photoshop": "http://ns.adobe.com/photoshop/1.0/",
        "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
        "dc": "http://purl.org/dc/elements/1.1/",
        "dcterms": "http://purl.org/dc/terms/",
    }
    declared = " ".join(f'xmlns:{short}="{name}"' for short, name in names.items())
    description = f'<rdf:Description rdf:about="" {attributes}>{properties}</rdf:Description>'
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {declared}>{description}</rdf:RDF></x:xmpmeta>'.encode()


def texts(**found: str) -> PngInfo:
    made = PngInfo()
    for keyword, text in found.items():
        made.add_text(keyword, text)
    return made


def sentence(encoded: bytes) -> str:
    return str(read_provenance(encoded))


# --- tags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_is_read_in_every_format(kind):
    found = sentence(saved(kind, exif=exif(Software="Midjourney 6", Make="Canon", Model="Canon EOS R5")))
    assert found == TAGS + "Midjourney 6 (EXIF Software), camera: Canon EOS R5"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_xmp_is_read_in_every_format(kind):
    packet = xmp(attributes='xmp:CreatorTool="Adobe Firefly"')
    options = {"TIFF": {"tiffinfo": {700: packet}}, "PNG": {"pnginfo": PngInfo()}}.get(kind, {"xmp": packet})
    if kind == "PNG":
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode(), zip=True)
    assert sentence(saved(kind, **options)) == TAGS + "Adobe Firefly (XMP CreatorTool)"


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (
            f"<Iptc4xmpExt:DigitalSourceType>{SOURCE}trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>",
            "AI generated (XMP DigitalSourceType)",
        ),
        (
            f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{SOURCE}compositeWithTrainedAlgorithmicMedia"/>',
            "edited with generative AI (XMP DigitalSourceType)",
        ),
        (
            f"<Iptc4xmpExt:DigitalSourceType>{SOURCE}digitalCapture</Iptc4xmpExt:DigitalSourceType>",
            "captured by a camera (XMP DigitalSourceType)",
        ),
        ("<photoshop:Credit>Made with Google AI</photoshop:Credit>", "Made with Google AI (XMP Credit)"),
        ("<Iptc4xmpExt:AISystemUsed>Some Model 3</Iptc4xmpExt:AISystemUsed>", "Some Model 3 (XMP AISystemUsed)"),
        (
            f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{JOB}</rdf:li></rdf:Alt></dc:description>',
            "Midjourney (XMP description)",
        ),
    ],
)
def test_what_xmp_says(properties, expected):
    assert sentence(saved(xmp=xmp(properties))) == TAGS + expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"parameters": PARAMETERS}, "Stable Diffusion web UI (PNG text parameters)"),
        ({"parameters": json.dumps({"sui_image_params": {}})}, "SwarmUI (PNG text parameters)"),
        ({"prompt": PROMPT, "workflow": WORKFLOW}, "ComfyUI (PNG text prompt, PNG text workflow)"),
        ({"invokeai_metadata": '{"seed": 1}'}, "InvokeAI (PNG text invokeai_metadata)"),
        ({"sd-metadata": '{"model": "x"}'}, "InvokeAI (PNG text sd-metadata)"),
        ({"fooocus_scheme": "fooocus"}, "Fooocus (PNG text fooocus_scheme)"),
        (
            {"Software": "NovelAI", "Source": "Stable Diffusion XL 7BCCAA2C"},
            "NovelAI (PNG text Software), Stable Diffusion XL 7BCCAA2C (PNG text Source)",
        ),
        ({"Description": JOB}, "Midjourney (PNG text Description)"),
    ],
)
def test_generators_are_recognized_by_what_they_store_in_a_png(found, expected):
    assert sentence(saved("PNG", pnginfo=texts(**found))) == TAGS + expected


def test_compressed_texts_after_the_pixels_are_read():
    encoded = saved("PNG")
    packed = b"parameters\0\0" + zlib.compress(PARAMETERS.encode())
    chunk = len(packed).to_bytes(4, "big") + b"zTXt" + packed + zlib.crc32(b"zTXt" + packed).to_bytes(4, "big")
    assert sentence(encoded[:-12] + chunk + encoded[-12:]) == TAGS + "Stable Diffusion web UI (PNG text parameters)"


@pytest.mark.parametrize(
    "comment",
    [
        b"ASCII\0\0\0" + PARAMETERS.encode(),
        b"UNICODE\0" + PARAMETERS.encode("utf-16-be"),
        b"UNICODE\0" + PARAMETERS.encode("utf-16-le"),
        bytes(8) + PARAMETERS.encode(),
    ],
)
def test_a_user_comment_is_read_in_every_encoding(comment):
    assert sentence(saved(exif=exif(comment))) == TAGS + "Stable Diffusion web UI (EXIF UserComment)"


def test_a_workflow_in_the_camera_tags_is_not_a_camera():
    encoded = saved("WEBP", exif=exif(Model=f"prompt:{PROMPT}", Make=f"workflow:{WORKFLOW}"))
    assert sentence(encoded) == TAGS + "ComfyUI (EXIF Make, EXIF Model)"


def test_a_camera_is_named_once():
    assert read_provenance(saved(exif=exif(Make="Canon", Model="Canon EOS R5"))).camera == "Canon EOS R5"
    assert read_provenance(saved(exif=exif(Make="NIKON CORPORATION", Model="Z 9"))).camera == "NIKON CORPORATION Z 9"
    assert read_provenance(saved(exif=exif(Model="Z 9"))).camera == "Z 9"


def test_an_image_without_provenance_has_an_empty_sentence():
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        assert sentence(encode(kind)) == "", kind
    ordinary = exif(Software="Adobe Photoshop 25.0", ImageDescription="The office of Midjourney in San Francisco")
    assert sentence(saved(exif=ordinary)) == "", "a caption may be about anything"
    assert sentence(saved("PNG", pnginfo=texts(parameters="width=3", prompt="Password:", workflow="[1]"))) == ""


def test_untrusted_text_is_cut_and_loses_control_characters():
    name = 'Midjourney\n\x1b[31m"\t' + "x" * 100
    expected = sentence(saved(exif=exif(Software=name)))
    assert expected == TAGS + 'Midjourney [31m" ' + "x" * 43 + " (EXIF Software)"


# --- only in its proper place ----------------------------------------------------------------------------------

WORDS = b"c2pa jumb Midjourney Software " + xmp(attributes='xmp:CreatorTool="Midjourney"') + PARAMETERS.encode()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def pixels_that_hold(words: bytes) -> bytes:
    """A TIFF that is not compressed, so that the words of its pixels lie in the file."""
    buffer, pixels = io.BytesIO(), np.frombuffer(words.ljust(64 * 48 * 3, b"."), np.uint8)
    Image.fromarray(pixels.reshape(48, 64, 3)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "encoded",
    [
        encode() + WORDS,
        saved(comment=WORDS),
        encode()[:2] + segment(0xEB, WORDS) + encode()[2:],  # the segment of C2PA, but without a JUMBF box
        encode()[:2] + segment(0xE1, b"Other\0" + WORDS) + encode()[2:],  # the segment of EXIF and XMP
        encode()[:2] + segment(0xE5, b"http://ns.adobe.com/xap/1.0/\0" + WORDS) + encode()[2:],  # not their segment
        encode()[:-300] + WORDS + encode()[-300:],  # among the pixels
        pixels_that_hold(WORDS),
        encode("PNG") + b"\0\0\0\x1etEXtSoftware\0Midjourney",
        saved("GIF", comment=WORDS),
    ],
    ids=["behind", "comment", "APP11", "APP1", "APP5", "pixels", "pixels as stored", "behind PNG", "GIF comment"],
)
def test_text_in_other_places_is_ignored(encoded):
    assert b"Midjourney" in encoded
    assert sentence(encoded) == ""


def test_only_xmp_properties_of_the_image_itself_count():
    inner = '<photoshop:Credit xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/">Midjourney</photoshop:Credit>'
    assert sentence(saved(xmp=xmp(f"<dc:creator>{inner}</dc:creator>"))) == ""
    foreign = xmp(attributes='xmp:CreatorTool="Midjourney"').replace(b"ns.adobe.com/xap", b"example.org/xap")
    assert sentence(saved(xmp=foreign)) == ""


# --- broken or malicious files ---------------------------------------------------------------------------------

FULL = {"exif": exif(Software="Midjourney"), "xmp": xmp(attributes='xmp:CreatorTool="Midjourney"')}


def png_with(kind: bytes, content: bytes) -> bytes:
    encoded = saved("PNG")
    return encoded[:33] + len(content).to_bytes(4, "big") + kind + content + bytes(4) + encoded[33:]


MALICIOUS = {
    "long text": png_with(b"tEXt", b"parameters\0" + bytes(100_000_000)),
    "bomb": png_with(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(bytes(100_000_000), 9)),
    "bomb of XMP": png_with(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<a>" * 30_000_000, 9)),
    "deep JSON": png_with(b"tEXt", b"prompt\0" + b'{"a":' * 200_000),
    "deep XML": png_with(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<a>" * 200_000),
    "nearly parameters": png_with(b"tEXt", b"parameters\0" + b"Steps: 1, " * 100_000),
    "half a text": png_with(b"iTXt", b"parameters\0\1"),
    "no zlib": png_with(b"zTXt", b"parameters\0\0none"),
    "EXIF without end": png_with(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + b"\x31\x01\2\0\xff\xff\xff\x7f\0\0\0\0" * 999),
    "unclosed XMP": saved(xmp=FULL["xmp"][:-30]),
    "entities": saved(xmp=b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + FULL["xmp"]),
    "unknown encoding": saved(xmp=b'<?xml version="1.0" encoding="none"?>' + FULL["xmp"]),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_broken_and_malicious_metadata_is_skipped_quickly(name):
    began = time.perf_counter()
    assert sentence(MALICIOUS[name]) == ""
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "PNG"])
def test_damage_anywhere_raises_nothing(kind):
    random, whole = np.random.default_rng(0), saved(kind, **FULL)
    for _ in range(200):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            damaged[place] = random.integers(256)
        assert sentence(bytes(damaged[: random.integers(len(whole) // 2, 2 * len(whole))])).isprintable()


def test_a_jpeg_without_metadata_segments_is_not_parsed(monkeypatch):
    monkeypatch.setattr("pipelines.media.provenance.read_metadata", None)
    for options in ({}, {"progressive": True}, {"comment": "Midjourney"}, {"icc_profile": b"Midjourney"}):
        assert read_provenance(saved(**options)) == Provenance()
    for options in ({"exif": exif(Software="Midjourney")}, {"xmp": xmp()}):
        with pytest.raises(TypeError):
            read_provenance(saved(**options))


def test_an_unreadable_file_has_no_sentence(tmp_path):
    assert format_provenance(tmp_path / "gone.jpg") == format_provenance(tmp_path) == ""


def test_a_file_too_large_to_be_scored_is_not_read(tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(saved(**FULL))
    assert format_provenance(path).startswith(TAGS)
    os.truncate(path, MAX_FILE_BYTES + 1)  # sparse, so it takes no space
    assert format_provenance(path) == ""


# --- beside the score ------------------------------------------------------------------------------------------


def test_tags_do_not_change_scores(run, tmp_path):
    pixels = Image.open(io.BytesIO(encode("PNG")))
    pixels.save(tmp_path / "plain.png")
    pixels.save(tmp_path / "tagged.png", pnginfo=texts(parameters=PARAMETERS))
    pixels.save(tmp_path / "plain.jpg")
    pixels.save(tmp_path / "tagged.jpg", **FULL)
    (tmp_path / "signed.jpg").write_bytes(signed((tmp_path / "plain.jpg").read_bytes()))
    (tmp_path / "malicious.png").write_bytes(MALICIOUS["bomb"])
    paths = [tmp_path / f"{name}" for name in ("plain.png", "tagged.png", "plain.jpg", "tagged.jpg", "signed.jpg")]
    first, second, third, fourth, fifth = predict(scorer_for_run(run), paths)
    assert second.provenance == TAGS + "Stable Diffusion web UI (PNG text parameters)"
    assert fourth.provenance == TAGS + "Midjourney (EXIF Software, XMP CreatorTool)"
    assert fifth.provenance.startswith("C2PA manifest")
    assert first.provenance == third.provenance == ""
    for plain, tagged in ((first, second), (third, fourth), (third, fifth)):
        assert dataclasses.replace(tagged, path=plain.path, provenance="") == plain
    (malicious,) = predict(scorer_for_run(run), [tmp_path / "malicious.png"])
    assert not malicious.error, "no text prevents a score"


# --- C2PA ------------------------------------------------------------------------------------------------------


def certificate(name: str, key, issuer: str, issuer_key, *, purpose=None) -> x509.Certificate:
    names = [
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "T"), x509.NameAttribute(NameOID.COMMON_NAME, text)])
        for text in (name, issuer)
    ]
    now, is_root = datetime.datetime.now(datetime.UTC), purpose is None
    uses = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    uses += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    allowed = {"key_cert_sign", "crl_sign"} if is_root else {"digital_signature"}
    made = (
        x509.CertificateBuilder(names[1], names[0], key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(x509.KeyUsage(**{use: use in allowed for use in uses}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if purpose:
        made = made.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return made.sign(issuer_key, hashes.SHA256())


ROOT_KEY, KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
PEM = serialization.Encoding.PEM
ROOT = certificate("root", ROOT_KEY, "root", ROOT_KEY).public_bytes(PEM)
C2PA_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")


def signed(encoded: bytes, source: str = "trainedAlgorithmicMedia", purpose=C2PA_SIGNING, mime: str = "") -> bytes:
    """The image, or another file of type `mime`, with a C2PA manifest."""
    mime = mime or Image.open(io.BytesIO(encoded)).get_format_mimetype()
    chain = certificate("signer", KEY, "root", ROOT_KEY, purpose=purpose).public_bytes(PEM) + ROOT
    private = KEY.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE + source}
    manifest = {
        "claim_generator_info": [{"name": "Fox Maker", "version": "1.0"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    context = c2pa.Context.from_dict({"verify": {"verify_after_sign": False}})
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, private, None))
    made = io.BytesIO()
    c2pa.Builder(manifest, context).sign(signer, mime, io.BytesIO(encoded), made)
    return made.getvalue()


@pytest.fixture
def trust(monkeypatch):
    """A function that sets or unsets the list of trusted signers; undone at the end."""

    def to(path) -> None:
        monkeypatch.setenv(provenance.TRUST_LIST, str(path)) if path else monkeypatch.delenv(
            provenance.TRUST_LIST, False
        )
        provenance._context.cache_clear()

    yield to
    monkeypatch.undo()
    provenance._context.cache_clear()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF"])
def test_a_manifest_of_an_unknown_signer(kind):
    expected = "C2PA manifest (signature valid, signer not known as trusted): AI generated, by Fox Maker 1.0"
    assert sentence(signed(saved(kind))) == expected


def test_a_manifest_of_a_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height = 64, 48
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    whole = signed((tmp_path / "a.mp4").read_bytes(), mime="video/mp4")
    (tmp_path / "a.mp4").write_bytes(whole)
    (tmp_path / "b.mp4").write_bytes(whole.replace(b"Lavf", b"none"))
    expected = "C2PA manifest ({}): AI generated, by Fox Maker 1.0"
    assert format_provenance(tmp_path / "a.mp4") == expected.format("signature valid, signer not known as trusted")
    assert format_provenance(tmp_path / "b.mp4") == expected.format("invalid: changed since it was signed")


@pytest.mark.parametrize(
    "purpose", [C2PA_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION, x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")]
)
def test_a_manifest_of_a_trusted_signer(purpose, trust, tmp_path):
    (tmp_path / "trusted.pem").write_bytes(ROOT)
    trust(tmp_path / "trusted.pem")
    expected = "C2PA manifest (signature valid, signer trusted): captured by a camera, by Fox Maker 1.0"
    assert sentence(signed(saved(), "digitalCapture", purpose)) == expected


def test_a_tampered_image_has_an_invalid_manifest(trust, tmp_path):
    (tmp_path / "trusted.pem").write_bytes(ROOT)
    trust(tmp_path / "trusted.pem")
    whole = signed(saved())
    expected = "C2PA manifest (invalid: changed since it was signed): AI generated, by Fox Maker 1.0"
    pixels, claim = bytearray(whole), whole.replace(b"Fox Maker", b"Cow Maker")
    pixels[-100] ^= 1
    assert sentence(bytes(pixels)) == expected
    assert sentence(claim) == expected.replace("Fox", "Cow")
    assert sentence(whole + b"more") == expected


def test_a_damaged_manifest_is_invalid():
    whole = signed(saved())
    assert sentence(whole.replace(b"c2cl", b"none")) == "C2PA manifest (invalid: damaged, or not properly signed)"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF"])
def test_a_damaged_image_without_a_manifest_has_none(kind):
    encoded = saved(kind)
    for length in range(20, len(encoded), 20):
        assert read_provenance(encoded[:length]).manifest is None


def test_a_manifest_on_a_server_is_not_fetched():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa"
        encoded = saved(xmp=xmp(attributes=f'dcterms:provenance="{address}"'))
        assert sentence(encoded) == "C2PA manifest (kept on a server, not fetched)"
        with pytest.raises(BlockingIOError):
            server.accept()


def test_an_unreadable_trust_list_is_reported_in_one_line(trust, tmp_path):
    for content in (None, "", "other", "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n"):
        if content is not None:
            (tmp_path / "list.pem").write_text(content)
        trust(tmp_path / "list.pem")
        with pytest.raises(
            DataError, match=r"DDK_C2PA_TRUST names .*list\.pem, which is not a file of PEM certificates"
        ):
            read_provenance(encode("PNG"))


def test_without_the_library_manifests_are_not_read_as_is_logged_once(monkeypatch, caplog, trust):
    encoded = signed(saved(exif=exif(Software="Midjourney")))
    monkeypatch.setattr(provenance, "c2pa", None)
    trust(None)
    with caplog.at_level("INFO", "pipelines.media.provenance"):
        assert sentence(encoded) == sentence(encoded) == TAGS + "Midjourney (EXIF Software)"
    assert [record.message for record in caplog.records] == [
        'C2PA manifests are not read; to read them: pip install "ddkeras[provenance]"'
    ]
