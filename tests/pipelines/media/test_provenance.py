"""What a file states about its origin: read from its proper place only, and never part of a score."""

import dataclasses
import datetime
import gzip
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
from pipelines.media import manifest
from pipelines.media.headers import MAX_FILE_BYTES
from pipelines.media.pillow import load_plugins
from pipelines.media.provenance import Provenance, provenance_of, read_provenance

PARAMETERS = "a red fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
PROMPT = json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 1}}})
WORKFLOW = json.dumps({"nodes": [{"id": 3, "type": "KSampler"}], "links": []})
JOB = "a red fox --v 6 Job ID: 01234567-89ab-cdef-0123-456789abcdef"
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TAGS = "tags, which anyone can write: "


def saved(kind: str = "JPEG", **options) -> bytes:
    load_plugins()
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


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def sentence(encoded: bytes) -> str:
    return str(read_provenance(encoded))


# --- tags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_exif_is_read_in_every_format(kind):
    found = sentence(saved(kind, exif=exif(Software="Midjourney 6", Make="Canon", Model="Canon EOS R5")))
    assert found == TAGS + "Midjourney 6 (EXIF Software), camera: Canon EOS R5"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
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
            f"<Iptc4xmpExt:DigitalSourceFileType>{SOURCE}trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceFileType>",
            "AI generated (XMP DigitalSourceFileType)",
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
        ({"Dream": '"a red fox" -s 50 -S 1 -W 512 -H 512 -C 7.5 -A k_lms'}, "InvokeAI (PNG text Dream)"),
        ({"Dream": '"a "red" fox" -s50 -S1 -W512 -H512'}, "InvokeAI (PNG text Dream)"),
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


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (
            b"zTXt",
            b"parameters\0\0" + zlib.compress(PARAMETERS.encode()),
            "Stable Diffusion web UI (PNG text parameters)",
        ),
        (b"comf", b"prompt\0" + PROMPT.encode(), "ComfyUI (PNG text prompt)"),  # as ComfyUI writes animations
        (b"comf", b"workflow\0" + WORKFLOW.encode(), "ComfyUI (PNG text workflow)"),
    ],
)
def test_texts_after_the_pixels_of_a_png_are_read(kind, content, expected):
    encoded = saved("PNG", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")])
    chunk = len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
    assert sentence(encoded[:-12] + chunk + encoded[-12:]) == TAGS + expected


def test_the_comment_of_a_gif_is_read():
    assert sentence(saved("GIF", comment=PARAMETERS)) == TAGS + "Stable Diffusion web UI (GIF comment)"
    assert sentence(saved("GIF", comment="by Midjourney")) == "", "a comment may be about anything"


def hidden(text: bytes, signature: bytes = b"stealth_pnginfo", size: tuple[int, int] = (100, 64)) -> bytes:
    """A PNG whose alpha spells a text in its lowest bits, column by column."""
    bits = np.unpackbits(np.frombuffer(signature + (len(text) * 8).to_bytes(4, "big") + text, np.uint8))
    alpha = np.full(size, 254, np.uint8).ravel()
    alpha[: len(bits)] |= bits[: len(alpha)]
    image, buffer = Image.new("RGB", size, "green"), io.BytesIO()
    image.putalpha(Image.fromarray(alpha.reshape(size).T.copy()))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_text_in_the_low_bits_of_the_alpha_is_read():
    expected = TAGS + "Stable Diffusion web UI (alpha channel)"
    assert sentence(hidden(PARAMETERS.encode())) == expected
    packed = gzip.compress(PARAMETERS.encode())
    assert sentence(hidden(packed, b"stealth_pngcomp")) == expected
    assert sentence(hidden(packed, b"stealth_pngcomp", (2000, 7))) == expected, "the signature fills many columns"
    novel = json.dumps(
        {"Description": "a fox", "Software": "NovelAI", "Source": "NovelAI Diffusion V4", "Comment": "{}"}
    )
    assert sentence(hidden(gzip.compress(novel.encode()), b"stealth_pngcomp")) == TAGS + "NovelAI (alpha channel)"


def test_what_hides_in_the_alpha_without_its_form_is_ignored():
    assert sentence(hidden(PARAMETERS.encode(), b"another_pnginfo")) == ""
    assert sentence(hidden(b"a caption about Midjourney")) == ""
    assert sentence(hidden(b"none", b"stealth_pngcomp")) == ""
    assert sentence(hidden(gzip.compress(bytes(20_000_000)), b"stealth_pngcomp", (800, 600))) == ""
    assert sentence(hidden(b"", size=(8, 8))) == "", "too small for a signature"


CHINESE = (
    "\u4e00" * 300 + "\nSteps: 20, Sampler: Euler a, CFG scale: 7"
)  # whose bytes are as often 0 as those of Latin


@pytest.mark.parametrize(
    "comment",
    [
        b"ASCII\0\0\0" + PARAMETERS.encode(),
        b"UNICODE\0" + PARAMETERS.encode("utf-16-be"),
        b"UNICODE\0" + PARAMETERS.encode("utf-16-le"),
        PARAMETERS.encode(),  # without naming its encoding
        b"UNICODE\0" + PARAMETERS.encode("utf-16"),  # with a byte order mark
        b"UNICODE\0" + CHINESE.encode("utf-16-be"),
        b"UNICODE\0" + CHINESE.encode("utf-16-le"),
        b"Unicode\0" + PARAMETERS.encode("utf-16-be"),
        bytes(8) + PARAMETERS.encode(),
    ],
)
def test_a_user_comment_is_read_in_every_encoding(comment):
    assert sentence(saved(exif=exif(comment))) == TAGS + "Stable Diffusion web UI (EXIF UserComment)"


FOOOCUS = json.dumps({"adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "juggernautXL", "full_prompt": ["a fox"]})


@pytest.mark.parametrize(
    ("text", "scheme", "expected"),
    [
        (PARAMETERS, "a1111", "Stable Diffusion web UI (EXIF UserComment), Fooocus (EXIF MakerNote)"),
        (FOOOCUS, "fooocus", "Fooocus (EXIF UserComment, EXIF MakerNote)"),
        (FOOOCUS, "", "Fooocus (EXIF UserComment)"),
    ],
)
def test_a_user_comment_beside_the_camera_is_read(text, scheme, expected):
    """Fooocus and what was made of it write it there, as plain text."""
    assert (
        sentence(saved(exif=exif(UserComment=text, **({"MakerNote": scheme} if scheme else {})))) == TAGS + expected
    )


def iptc(**records: bytes) -> bytes:
    """The content of a Photoshop segment with records of IPTC."""
    numbers = {"credit": 110, "program": 65, "caption": 120}
    content = b"".join(
        b"\x1c\x02" + bytes([numbers[name]]) + len(text).to_bytes(2, "big") + text for name, text in records.items()
    )
    block = b"8BIM\x04\x04\0\0" + len(content).to_bytes(4, "big") + content + bytes(len(content) % 2)
    return b"Photoshop 3.0\0" + block


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({"credit": b"Made with Google AI"}, "Made with Google AI (IPTC Credit)"),
        ({"program": b"Adobe Firefly"}, "Adobe Firefly (IPTC OriginatingProgram)"),
        ({"caption": JOB.encode()}, "Midjourney (IPTC Caption)"),
    ],
)
def test_the_older_records_of_iptc_are_read(records, expected):
    encoded = saved()
    assert sentence(encoded[:2] + segment(0xED, iptc(**records)) + encoded[2:]) == TAGS + expected


def test_a_photograph_of_a_news_agency_has_no_claim():
    encoded = saved()
    ordinary = iptc(credit=b"Reuters", caption=b"The office of Midjourney in San Francisco")
    assert sentence(encoded[:2] + segment(0xED, ordinary) + encoded[2:]) == ""


def extension(packet: bytes, size: int = 100) -> bytes:
    """Segments with a packet of XMP in parts, the last part first."""
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"0123456789ABCDEF" * 2 + len(packet).to_bytes(4, "big")
    starts = reversed(range(0, len(packet), size))
    return b"".join(segment(0xE1, head + at.to_bytes(4, "big") + packet[at : at + size]) for at in starts)


def test_xmp_that_continues_in_further_segments_is_read():
    encoded = saved(xmp=xmp(attributes='xmp:CreatorTool="Adobe Firefly"'))
    further = extension(xmp("<photoshop:Credit>Made with Google AI</photoshop:Credit>"))
    expected = TAGS + "Adobe Firefly (XMP CreatorTool), Made with Google AI (XMP Credit)"
    assert sentence(encoded[:2] + further + encoded[2:]) == expected
    huge = segment(
        0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(32) + b"\xff\xff\xff\xff" + bytes(4) + b"<a>"
    )
    assert sentence(encoded[:2] + huge + encoded[2:]) == TAGS + "Adobe Firefly (XMP CreatorTool)"


def test_software_that_is_no_generator_is_named_as_that():
    photograph = exif(Software="Adobe Lightroom 5.3 (Macintosh)", Make="Canon", Model="Canon EOS R5")
    expected = TAGS + "camera: Canon EOS R5, software: Adobe Lightroom 5.3 (Macintosh)"
    assert sentence(saved(exif=photograph)) == expected
    assert read_provenance(saved(exif=photograph)).fields()["tool"] == "Adobe Lightroom 5.3 (Macintosh)"
    for firmware in ("12.1.4", "J320FXXU0AQL1"):
        assert sentence(saved(exif=exif(Software=firmware))) == ""


def test_a_camera_is_found_in_xmp_at_least_by_its_lens():
    names = 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:aux="http://ns.adobe.com/exif/1.0/aux/" '
    lens = 'aux:Lens="EF24-105mm f/4L IS USM"'
    assert sentence(saved(xmp=xmp(attributes=names + lens))) == TAGS + "camera: lens EF24-105mm f/4L IS USM"
    named = names + lens + ' tiff:Make="Canon" tiff:Model="Canon EOS R5"'
    assert sentence(saved(xmp=xmp(attributes=named))) == TAGS + "camera: Canon EOS R5"


# --- further images and videos ---------------------------------------------------------------------------------

HDR = 'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"'
GOOGLE = 'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
CONTAINER = (
    '<c:Directory xmlns:c="http://ns.google.com/photos/1.0/container/" '
    'xmlns:Item="http://ns.google.com/photos/1.0/container/item/"><rdf:Seq><rdf:li rdf:parseType="Resource">'
    '<c:Item Item:Semantic="{}"/></rdf:li></rdf:Seq></c:Directory>'
)
SAMSUNG = b"SEFH" + bytes(4) + b"\1\0\0\0" + b"\0\0\x30\x0a" + bytes(8) + b"\x18\0\0\0SEFT"


def with_second_image(packet: bytes) -> bytes:
    buffer, second = io.BytesIO(), Image.new("L", (32, 24))
    second.encoderinfo = {"xmp": packet}
    Image.new("RGB", (64, 48)).save(buffer, "MPO", save_all=True, append_images=[second])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("encoded", "gain_map", "motion_photo"),
    [
        (saved(xmp=xmp(attributes=HDR)), True, False),
        (saved(xmp=xmp(CONTAINER.format("GainMap"))), True, False),
        (saved()[:2] + segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0") + saved()[2:], True, False),
        (with_second_image(xmp(attributes=HDR)), True, False),
        (with_second_image(xmp()), False, False),
        (saved(xmp=xmp(attributes=GOOGLE + 'GCamera:MotionPhoto="1"')), False, True),
        (saved(xmp=xmp(attributes=GOOGLE + 'GCamera:MotionPhoto="0"')), False, False),
        (saved(xmp=xmp(CONTAINER.format("MotionPhoto"))), False, True),
        (saved(exif=exif(Model="SM-G991B")) + SAMSUNG, False, True),
        (saved("HEIF") + b"\0\0\0\x10mpvdvideovid", False, True),
        (saved("HEIF"), False, False),
        (saved("AVIF"), False, False),
    ],
)
def test_what_lies_beside_an_image_is_told(encoded, gain_map, motion_photo):
    found = read_provenance(encoded)
    assert (found.has_gain_map, found.has_motion_photo) == (gain_map, motion_photo)
    assert ("a gain map" in str(found), "a motion photo" in str(found)) == (gain_map, motion_photo)
    assert (found.fields()["gainMap"], found.fields()["motionPhoto"]) == (gain_map, motion_photo)


def test_a_workflow_in_the_camera_tags_is_not_a_camera():
    encoded = saved("WEBP", exif=exif(Model=f"prompt:{PROMPT}", Make=f"workflow:{WORKFLOW}"))
    assert sentence(encoded) == TAGS + "ComfyUI (EXIF Make, EXIF Model)"


def test_a_camera_is_named_once():
    assert read_provenance(saved(exif=exif(Make="Canon", Model="Canon EOS R5"))).camera == "Canon EOS R5"
    assert read_provenance(saved(exif=exif(Make="NIKON CORPORATION", Model="Z 9"))).camera == "NIKON CORPORATION Z 9"
    assert read_provenance(saved(exif=exif(Make="NIKON CORPORATION", Model="NIKON Z 9"))).camera == "NIKON Z 9"
    assert read_provenance(saved(exif=exif(Model="Z 9"))).camera == "Z 9"


def test_an_image_without_provenance_has_an_empty_sentence():
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        assert sentence(encode(kind)) == "", kind
    ordinary = exif(Software="12.1.4", ImageDescription="The office of Midjourney in San Francisco")
    assert sentence(saved(exif=ordinary)) == "", "a caption may be about anything"
    assert sentence(saved("PNG", pnginfo=texts(parameters="width=3", prompt="Password:", workflow="[1]"))) == ""


def test_untrusted_text_is_cut_and_loses_control_characters():
    name = 'Midjourney\n\x1b[31m"\t' + "x" * 100
    expected = sentence(saved(exif=exif(Software=name)))
    assert expected == TAGS + 'Midjourney [31m" ' + "x" * 43 + " (EXIF Software)"


# --- only in its proper place ----------------------------------------------------------------------------------

WORDS = b"c2pa jumb Midjourney Software " + xmp(attributes='xmp:CreatorTool="Midjourney"') + PARAMETERS.encode()


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
    ],
    ids=["behind", "comment", "APP11", "APP1", "APP5", "pixels", "pixels as stored", "behind PNG"],
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


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "PNG", "HEIF"])
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
    segments = (segment(0xED, iptc(credit=b"Google AI")), segment(0xE2, b"MPF\0"), extension(xmp()))
    for encoded in (
        saved(exif=exif(Software="Midjourney")),
        *(saved()[:2] + each + saved()[2:] for each in segments),
    ):
        with pytest.raises(TypeError):
            read_provenance(encoded)


def test_an_unreadable_file_has_no_sentence(tmp_path):
    assert provenance_of(tmp_path / "gone.jpg") == provenance_of(tmp_path) == Provenance()


def test_a_file_too_large_to_be_scored_is_not_read(tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(saved(**FULL))
    assert str(provenance_of(path)).startswith(TAGS)
    os.truncate(path, MAX_FILE_BYTES + 1)  # sparse, so it takes no space
    assert str(provenance_of(path)) == ""


# --- real files ------------------------------------------------------------------------------------------------

# What each says, by the number its name begins with, without a list of trusted signers.
ORIGINALS = {
    "005": ("tags, which anyone can write: AI generated (XMP DigitalSourceType), Midjourney (PNG text Description)"),
    "009": (
        "C2PA manifest signed by Google LLC (not known as trusted), content unchanged since, certificate "
        "expired: AI generated, by Google C2PA Core Generator Library 834022128:834022128; tags, which anyone"
        " can write: AI generated (XMP DigitalSourceType, XMP DigitalSourceFileType), Made with Google AI "
        "(XMP Credit, IPTC Credit)"
    ),
    "011": (
        "C2PA manifest signed by Google LLC (not known as trusted), content unchanged since, certificate "
        "expired: AI generated, by Google C2PA Core Generator Library 834022128:834022128; tags, which anyone"
        " can write: AI generated (XMP DigitalSourceType, XMP DigitalSourceFileType), Made with Google AI "
        "(XMP Credit, IPTC Credit)"
    ),
    "013": (
        "C2PA manifest signed by OpenAI (not known as trusted), content unchanged since, certificate expired,"
        " made to an older specification: AI generated, by ChatGPT"
    ),
    "024": "tags, which anyone can write: ComfyUI (PNG text prompt, PNG text workflow)",
    "033": "tags, which anyone can write: Stable Diffusion web UI (EXIF UserComment)",
    "035": "tags, which anyone can write: Stable Diffusion web UI (alpha channel)",
    "036": "tags, which anyone can write: ComfyUI (PNG text prompt, PNG text workflow)",
    "038": "tags, which anyone can write: InvokeAI (PNG text Dream)",
    "039": "tags, which anyone can write: InvokeAI (PNG text invokeai_metadata)",
    "041": ("tags, which anyone can write: NovelAI (PNG text Software), Stable Diffusion 1D44365E (PNG text Source)"),
    "042": "",
    "044": "tags, which anyone can write: camera: Canon EOS REBEL T3, software: Adobe Lightroom 5.3 (Macintosh)",
    "045": "tags, which anyone can write: camera: Panasonic DMC-ZS60, software: Adobe Lightroom 5.3 (Macintosh)",
    "047": (
        "C2PA manifest signed by C2PA Test Signing Cert (not known as trusted), content unchanged since: "
        "actions opened + color adjustments + placed + resized, by make test images 0.16.1"
    ),
    "048": (
        "C2PA manifest signed by C2PA Test Signing Cert (not known as trusted), content unchanged since: "
        "actions created + drawing, by make test images 0.16.1"
    ),
    "050": (
        "C2PA manifest signed by C2PA Test Signing Cert (not known as trusted), content changed since; before"
        " that: actions opened + color adjustments, by make test images 0.16.1"
    ),
    "051": (
        "C2PA manifest signed by C2PA Test Signing Cert (not known as trusted), manifest altered since; "
        "claims without proof: actions opened + color adjustments, by make test images 0.16.1"
    ),
    "054": (
        "C2PA manifest signed by NIKON CORPORATION (not known as trusted), content unchanged since, "
        "certificate expired: camera data of NIKON Z 9, by Nikon Z 9 Sample for Adobe MAX 2022; tags, which "
        "anyone can write: camera: NIKON Z 9, software: NIKON Z 9 Ver.T2.10.gb"
    ),
    "055": (
        "C2PA manifest signed by Truepic (not known as trusted), picture unchanged since (its metadata are "
        "not covered), made to an older specification: camera data of Google Pixel 5, by Truepic Lens SDK "
        "libc2pa C++ Library 2.5.1; tags, which anyone can write: camera: Google Pixel 5"
    ),
    "057": (
        "C2PA manifest signed by Adobe Inc. (not known as trusted), content unchanged since: edited with "
        "generative AI, actions cropped + edited, by Adobe Photoshop 26.9.0; made from ocsp.jpg, signed by "
        "Adobe Inc. (not known as trusted): AI generated, by Adobe Firefly"
    ),
    "058": (
        "C2PA manifest signed by C2PA Test Signing Cert (not known as trusted), content unchanged since: made"
        " by an algorithm, by make_test_images 0.33.1"
    ),
    "060": (
        "C2PA manifest kept on a server (cai-manifests.adobe.com), not fetched; tags, which anyone can write:"
        " software: Adobe Photoshop 21.1 (Macintosh)"
    ),
    "061": "C2PA manifest kept on a server (localhost), not fetched",
    "063": (
        "C2PA manifest that cannot be read (unknown algorithm); tags, which anyone can write: camera: samsung"
        " SM-J320F"
    ),
    "064": "C2PA manifest that cannot be read (prerelease content detected)",
    "066": "",
    "068": "",
    "074": "tags, which anyone can write: camera: Apple iPhone 7",
    "075": "",
    "077": ("tags, which anyone can write: camera: Canon EOS 7D, software: Adobe Photoshop Lightroom 6.7 (Windows)"),
    "079": (
        "tags, which anyone can write: camera: lens Canon EF 24-105mm f/4L IS II USM, software: Capture One "
        "22 Macintosh"
    ),
    "085": "",
    "089": "tags, which anyone can write: camera: Apple iPhone 13 mini, a gain map",
    "092": (
        "tags, which anyone can write: camera: Google Pixel 4a, software: Adobe Photoshop Camera Raw 15.5.1 "
        "(Macintosh), a gain map"
    ),
    "093": "tags, which anyone can write: a gain map",
    "094": "",
    "096": "",
    "099": "tags, which anyone can write: camera: Apple iPhone",
}


@pytest.mark.parametrize("number", ORIGINALS)
def test_real_files_are_told_as_what_they_are(number, reference):
    (path,) = (reference / "originals").glob(f"{number}_*")
    assert str(read_provenance(path)) == ORIGINALS[number]
    assert provenance_of(path) == read_provenance(path)


# --- beside the score ------------------------------------------------------------------------------------------

NOTHING = Provenance().fields()


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
        assert dataclasses.replace(tagged, path=plain.path, provenance="", provenance_fields=NOTHING) == plain
    (malicious,) = predict(scorer_for_run(run), [tmp_path / "malicious.png"])
    assert not malicious.error, "no text prevents a score"


# --- C2PA ------------------------------------------------------------------------------------------------------


def certificate(
    name: str, key, issuer: str, issuer_key, *, purpose=None, organization="T", seconds=2 * 24 * 3600
) -> x509.Certificate:
    names = [
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, of), x509.NameAttribute(NameOID.COMMON_NAME, text)])
        for text, of in ((name, organization), (issuer, "T"))
    ]
    now, is_root = datetime.datetime.now(datetime.UTC), purpose is None
    uses = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    uses += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    allowed = {"key_cert_sign", "crl_sign"} if is_root else {"digital_signature"}
    made = (
        x509.CertificateBuilder(names[1], names[0], key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(seconds=seconds))
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


def signed(
    encoded: bytes,
    source: str = "trainedAlgorithmicMedia",
    purpose=C2PA_SIGNING,
    mime: str = "",
    *,
    actions: list[dict] | None = None,
    assertions: list[dict] | None = None,
    parent: bytes = b"",
    claim_version: int = 2,
    organization: str = "T",
    root: str = "root",
    seconds: float = 2 * 24 * 3600,
) -> bytes:
    """The image, or another file of type `mime`, with a C2PA manifest whose certificate is valid for some seconds."""
    mime = mime or Image.open(io.BytesIO(encoded)).get_format_mimetype()
    issuer = certificate(root, ROOT_KEY, root, ROOT_KEY).public_bytes(PEM)
    own = certificate("signer", KEY, root, ROOT_KEY, purpose=purpose, organization=organization, seconds=seconds)
    private = KEY.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    if actions is None:
        actions = [{"action": "c2pa.created", "digitalSourceType": SOURCE + source}]
    made_of = {
        "claim_generator_info": [{"name": "Fox Maker", "version": "1.0"}],
        "assertions": [
            *([{"label": "c2pa.actions", "data": {"actions": actions}}] if actions else []),
            *(assertions or []),
        ],
        "claim_version": claim_version,
    }
    uses = {"trust_config": "\n".join(manifest._KEY_USAGES.values())}
    context = c2pa.Context.from_dict({"verify": {"verify_after_sign": False}, "trust": uses})
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", own.public_bytes(PEM) + issuer, private, None))
    builder, made = c2pa.Builder(made_of, context), io.BytesIO()
    if parent:
        builder.add_ingredient({"title": "photo.jpg", "relationship": "parentOf"}, "image/jpeg", io.BytesIO(parent))
    builder.sign(signer, mime, io.BytesIO(encoded), made)
    return made.getvalue()


UNKNOWN, TRUSTED = ("C2PA manifest signed by T (not known as trusted)", "C2PA manifest signed by T (trusted)")


@pytest.fixture
def trust(monkeypatch):
    """A function that sets or unsets the list of trusted signers; undone at the end."""

    def to(path) -> None:
        monkeypatch.setenv(manifest.TRUST_LIST, str(path)) if path else monkeypatch.delenv(manifest.TRUST_LIST, False)
        manifest._context.cache_clear()

    yield to
    monkeypatch.undo()
    manifest._context.cache_clear()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF"])
def test_a_manifest_of_an_unknown_signer(kind):
    assert sentence(signed(saved(kind))) == f"{UNKNOWN}, content unchanged since: AI generated, by Fox Maker 1.0"


def test_a_manifest_of_a_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height = 64, 48
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    whole = signed((tmp_path / "a.mp4").read_bytes(), mime="video/mp4")
    (tmp_path / "a.mp4").write_bytes(whole)
    (tmp_path / "b.mp4").write_bytes(whole.replace(b"Lavf", b"none"))
    expected = UNKNOWN + ", content {} AI generated, by Fox Maker 1.0"
    assert str(provenance_of(tmp_path / "a.mp4")) == expected.format("unchanged since:")
    assert str(provenance_of(tmp_path / "b.mp4")) == expected.format("changed since; before that:")


@pytest.mark.parametrize(
    "purpose", [C2PA_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION, x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")]
)
def test_a_manifest_of_a_trusted_signer(purpose, trust, tmp_path):
    (tmp_path / "trusted.pem").write_bytes(ROOT)
    trust(tmp_path / "trusted.pem")
    expected = f"{TRUSTED}, content unchanged since: captured by a camera, by Fox Maker 1.0"
    assert sentence(signed(saved(), "digitalCapture", purpose)) == expected


def test_what_was_changed_is_told_as_before_the_change(trust, tmp_path):
    (tmp_path / "trusted.pem").write_bytes(ROOT)
    trust(tmp_path / "trusted.pem")
    whole = signed(saved())
    expected = f"{TRUSTED}, content changed since; before that: AI generated, by Fox Maker 1.0"
    pixels = bytearray(whole)
    pixels[-100] ^= 1
    assert sentence(bytes(pixels)) == expected
    assert sentence(whole + b"more") == expected
    assert read_provenance(bytes(pixels)).fields()["integrity"] == "changed"


def test_an_altered_manifest_proves_nothing(trust, tmp_path):
    (tmp_path / "trusted.pem").write_bytes(ROOT)
    trust(tmp_path / "trusted.pem")
    found = read_provenance(signed(saved()).replace(b"Fox Maker", b"Cow Maker"))
    claims = "claims without proof: AI generated, by Cow Maker 1.0"
    assert str(found) == f"{UNKNOWN}, manifest altered since; {claims}", "a signer is trusted for what it signed"
    assert (found.fields()["integrity"], found.fields()["trust"]) == ("manifest altered", "unknown")


def test_a_manifest_that_cannot_be_read_is_not_called_damaged():
    found = read_provenance(signed(saved()).replace(b"c2cl", b"none"))
    assert str(found).startswith("C2PA manifest that cannot be read (")
    assert (found.fields()["manifest"], found.fields()["integrity"]) == ("unreadable", "not checkable")


def test_an_expired_certificate_changes_nothing_about_the_content(trust, tmp_path):
    """Nothing proves when it was signed, so that no list makes it trusted; but what was signed is what is here."""
    (tmp_path / "trusted.pem").write_bytes(ROOT)
    encoded = signed(saved(), seconds=2)
    time.sleep(3)
    claims = "content unchanged since, certificate expired: AI generated, by Fox Maker 1.0"
    assert sentence(encoded) == f"{UNKNOWN}, {claims}"
    trust(tmp_path / "trusted.pem")
    assert sentence(encoded) == f"{UNKNOWN}, {claims}"


def test_a_manifest_that_breaks_the_rules_of_today_is_of_an_older_specification():
    encoded = signed(saved(), actions=[{"action": "c2pa.converted", "digitalSourceType": SOURCE + "digitalArt"}])
    found = read_provenance(encoded)
    assert str(found) == (
        f"{UNKNOWN}, content unchanged since, made to an older specification: "
        "made by a person with software, by Fox Maker 1.0"
    )
    assert found.fields() == {
        "manifest": "embedded",
        "integrity": "unchanged",
        "signer": "T",
        "trust": "unknown",
        "certificate": "valid",
        "specification": "older",
        "digitalSourceType": "digitalArt",
        "tool": "Fox Maker 1.0",
        "ingredients": [],
        "gainMap": False,
        "motionPhoto": False,
    }


def test_each_code_of_a_validation_has_one_meaning():
    """By the codes of the specification, among them those that no file made here has."""
    signed_by_t = {"signature_info": {"issuer": "T"}, "label": "a"}
    matched = ["claimSignature.validated", "assertion.dataHash.match"]

    def standing(*failed: str, passed: list[str] = matched, explanation: str = "") -> manifest.Standing:
        results = {
            "success": [{"code": code} for code in passed],
            "failure": [{"code": code, "explanation": explanation} for code in failed],
        }
        store = {
            "active_manifest": "a",
            "manifests": {"a": signed_by_t},
            "validation_results": {"activeManifest": results},
        }
        found = manifest._Store(store, lambda: [(0, 100)], io.BytesIO(encode())).manifest().standing
        assert found is not None
        return found

    unchanged = ("unchanged", "valid", False)
    expected = {
        (): unchanged,
        ("signingCredential.untrusted", "timeStamp.untrusted"): unchanged,
        ("signingCredential.ocsp.unknown",): unchanged,
        ("signingCredential.expired",): ("unchanged", "expired", False),
        ("signingCredential.expired", "signingCredential.ocsp.revoked"): ("unchanged", "revoked", False),
        ("signingCredential.invalid",): ("unchanged", "unfit", False),
        ("claimSignature.outsideValidity",): ("unchanged", "not valid when it signed", False),
        ("assertion.action.malformed",): ("unchanged", "valid", True),
        ("assertion.json.invalid", "manifest.multipleParents"): ("unchanged", "valid", True),
        ("assertion.bmffHash.mismatch",): ("changed", "valid", False),
        ("assertion.dataHash.mismatch", "assertion.action.malformed"): ("changed", "valid", True),
        ("assertion.hashedURI.mismatch",): ("manifest altered", "valid", False),
        ("assertion.missing",): ("manifest altered", "valid", False),
        ("claimSignature.mismatch", "assertion.dataHash.mismatch"): ("manifest altered", "valid", False),
        ("algorithm.unsupported",): ("not checkable", "valid", False),
        ("general.error",): ("not checkable", "valid", False),
    }
    for codes, meaning in expected.items():
        found = standing(*codes)
        assert (found.integrity, found.certificate, found.is_older) == meaning, codes
    assert standing(passed=["claimSignature.validated"]).integrity == "not checkable", "no hash of the content"
    assert standing(passed=["assertion.dataHash.match"]).integrity == "not checkable", "no signature"
    assert standing(passed=[*matched, "signingCredential.trusted"]).trust == "trusted"
    assert (
        standing("signingCredential.ocsp.revoked", passed=[*matched, "signingCredential.trusted"]).trust == "unknown"
    )
    narrower = "data hash exclusion does not match the manifest location in the asset"
    assert standing("assertion.dataHash.mismatch", explanation=narrower).integrity == "not checkable", (
        "pixels are left out"
    )


def test_a_hash_that_leaves_out_metadata_still_covers_the_picture(reference):
    """A phone's capture of 2023, whose hash leaves out EXIF as well as the manifest."""
    encoded = (reference / "originals/055_truepic-20230212-camera.jpg").read_bytes()
    start = (
        "C2PA manifest signed by Truepic (not known as trusted), {}, made to an older specification{} "
        "camera data of Google Pixel 5, by Truepic Lens SDK libc2pa C++ Library 2.5.1"
    )
    unchanged = start.format("picture unchanged since (its metadata are not covered)", ":")
    assert sentence(encoded).startswith(unchanged)
    pixels = bytearray(encoded)
    pixels[-5000] ^= 1
    assert sentence(bytes(pixels)).startswith(start.format("content changed since", "; before that:"))
    # A table of quantization in the place of EXIF changes the picture, but no hash.
    length = int.from_bytes(encoded[4:6], "big")
    table = segment(0xDB, bytes([0, *[99] * 64]))
    forged = encoded[:2] + table + segment(0xE1, bytes(length - 2 - len(table))) + encoded[4 + length :]
    assert len(forged) == len(encoded)
    assert sentence(forged).startswith(start.format("content cannot be checked", "; claims without proof:"))


@pytest.mark.parametrize(
    ("label", "data", "claims"),
    [
        ("stds.exif", {"EXIF:Make": "Google", "EXIF:Model": "Pixel 5"}, "camera data of Google Pixel 5"),
        ("stds.exif", {"tiff:Make": "NIKON CORPORATION", "tiff:Model": "NIKON Z 9"}, "camera data of NIKON Z 9"),
        ("stds.iptc", {"Iptc4xmpExt:DigitalSourceType": SOURCE + "trainedAlgorithmicMedia"}, "AI generated"),
    ],
)
def test_signed_tags_are_claims(label, data, claims):
    encoded = signed(saved(), actions=[], assertions=[{"label": label, "data": data, "kind": "Json"}])
    assert sentence(encoded).endswith(f": {claims}, by Fox Maker 1.0")


# --- what an image was made from -------------------------------------------------------------------------------


def edited(parent: bytes, source: str = "", **options) -> bytes:
    """Another image, with a manifest that says that it was made from `parent`."""
    actions = [{"action": "c2pa.created", "digitalSourceType": SOURCE + source}] if source else []
    return signed(saved(quality=50), actions=actions, parent=parent, **options)


def broken(encoded: bytes) -> bytes:
    changed = bytearray(encoded)
    changed[-100] ^= 1
    return bytes(changed)


def test_an_ingredient_that_had_been_changed_is_not_laundered(trust, tmp_path):
    (tmp_path / "trusted.pem").write_bytes(ROOT)
    trust(tmp_path / "trusted.pem")
    photo = signed(saved(), "digitalCapture")
    whole, changed = (read_provenance(edited(parent)) for parent in (photo, broken(photo)))
    assert str(whole) == (
        f"{TRUSTED}, content unchanged since, made to an older specification: captured by a camera, by Fox Maker 1.0"
    )
    assert str(changed) == (
        f"{TRUSTED}, content unchanged since, made to an older specification: by Fox Maker 1.0; made from photo.jpg, "
        "signed by T (trusted), content changed since; before that: captured by a camera, by Fox Maker 1.0"
    )
    assert whole.fields()["digitalSourceType"] == "digitalCapture"
    assert changed.fields()["digitalSourceType"] is None
    assert changed.fields()["ingredients"] == [
        "photo.jpg, signed by T (trusted), content changed since; before that: captured by a camera, by Fox Maker 1.0"
    ]
    assert read_provenance(edited(edited(broken(photo)))).fields()["digitalSourceType"] is None, (
        "nor by editing twice"
    )


@pytest.mark.parametrize("version", [1, 2])
def test_no_version_of_claims_launders_an_ingredient(version):
    photo = signed(saved(), "digitalCapture", claim_version=version)
    whole, changed = (sentence(edited(parent, claim_version=version)) for parent in (photo, broken(photo)))
    assert "content unchanged since" in whole
    assert "captured by a camera" in whole
    assert "changed since; before" not in whole
    made_from = (
        "made from photo.jpg, signed by T (not known as trusted), content changed since; before that: captured by"
    )
    assert made_from in changed


def test_an_altered_ingredient_proves_nothing(trust, tmp_path):
    (tmp_path / "trusted.pem").write_bytes(ROOT)
    trust(tmp_path / "trusted.pem")
    photo = signed(saved(), "digitalCapture").replace(b"Fox Maker", b"Cow Maker")
    assert sentence(edited(photo)).endswith(
        ": by Fox Maker 1.0; made from photo.jpg, signed by T (not known as trusted), manifest altered since; "
        "claims without proof: captured by a camera, by Cow Maker 1.0"
    )


def test_an_ingredient_of_another_signer_is_told_apart(trust, tmp_path):
    photo = signed(saved(), "digitalCapture", organization="Other")
    claims = "photo.jpg, signed by Other (not known as trusted): captured by a camera, by Fox Maker 1.0"
    assert sentence(edited(photo)).endswith(f": by Fox Maker 1.0; made from {claims}")
    (tmp_path / "trusted.pem").write_bytes(ROOT)
    trust(tmp_path / "trusted.pem")
    whole = edited(photo, source="compositeWithTrainedAlgorithmicMedia")
    assert sentence(whole) == (
        f"{TRUSTED}, content unchanged since: edited with generative AI, by Fox Maker 1.0; "
        "made from photo.jpg, signed by Other (trusted): captured by a camera, by Fox Maker 1.0"
    )
    assert "(trusted)" not in sentence(whole.replace(b"Fox Maker", b"Cow Maker"))


def test_an_unknown_signer_lends_itself_no_trust_by_an_ingredient(trust, tmp_path):
    other_root = certificate("other", ROOT_KEY, "other", ROOT_KEY).public_bytes(PEM)
    (tmp_path / "trusted.pem").write_bytes(other_root)
    trust(tmp_path / "trusted.pem")
    photo = signed(saved(), "digitalCapture", root="other")
    assert sentence(photo).startswith(TRUSTED)
    assert "(trusted)" not in sentence(edited(photo))


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
        assert sentence(encoded) == "C2PA manifest kept on a server (127.0.0.1), not fetched"
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
    monkeypatch.setattr(manifest, "c2pa", None)
    trust(None)
    with caplog.at_level("INFO", "pipelines.media.manifest"):
        assert sentence(encoded) == sentence(encoded) == TAGS + "Midjourney (EXIF Software)"
    assert [record.message for record in caplog.records] == [
        'C2PA manifests are not read; to read them: pip install "ddkeras[provenance]"'
    ]
