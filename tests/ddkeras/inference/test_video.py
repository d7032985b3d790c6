"""Videos: which frames are sampled, and how their scores are aggregated."""

import contextlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit, logit
from tiny import encode, portrait, with_each_verdict

from ddkeras.cli import main
from ddkeras.inference import prediction, video
from ddkeras.inference.scorers import Scorer, scorer_for_run
from ddkeras.metrics.calibration import Limits, OperatingPoint
from pipelines.decoding import resize
from pipelines.exceptions import DataError
from pipelines.media import video as media_video
from pipelines.media.headers import UnreadableError
from pipelines.media.video import is_video, sample_frames
from pipelines.views import Squash

RED, BLUE = (200, 30, 30), (30, 30, 200)


def plain(colour, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def clip(path: Path, images, *, rate=4, codec="libx264", times=None, rotation=0, options=None) -> Path:
    """A video of these frames, at a constant rate or at these times in seconds."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times:
                frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def seconds(path: Path, fps: float) -> list[float]:
    return [round(frame.seconds, 3) for frame in sample_frames(path, fps=fps)]


def shades(number: int) -> list[np.ndarray]:
    """Frames that get lighter."""
    return [plain(6 * index) for index in range(number)]


# --- frames ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mov", "mpeg4"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.ts", "libx264")],
)
def test_all_containers_are_sampled_by_time(tmp_path, name, codec):
    path = clip(tmp_path / name, shades(12), codec=codec)
    assert seconds(path, 1) == [0.0, 1.0, 2.0]
    assert seconds(path, 4) == [index / 4 for index in range(12)]
    assert seconds(path, 60) == [index / 4 for index in range(12)], "no frame twice"
    assert seconds(path, 0.5) == [0.0, 2.0]


def test_frames_have_the_original_pixels(tmp_path):
    images = list(np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8))
    for frame, image in zip(
        sample_frames(clip(tmp_path / "a.mkv", images, codec="ffv1"), fps=4), images, strict=True
    ):
        assert frame.image.dtype == np.uint8
        np.testing.assert_array_equal(frame.image, image)


def test_a_variable_frame_rate_is_sampled_by_time(tmp_path):
    times = [0, 0.1, 0.2, 0.3, 0.9, 1.3, 1.4, 5.0, 5.1, 6.2]
    path = clip(tmp_path / "a.mkv", shades(10), times=times)
    frames = list(sample_frames(path, fps=1))
    assert [round(frame.seconds, 3) for frame in frames] == [0, 1.3, 5.0, 6.2]
    assert [round(frame.image.mean() / 6) for frame in frames] == [0, 5, 7, 9], (
        "sampling by frame count would give others"
    )


def test_time_starts_with_the_first_frame(tmp_path):
    assert seconds(clip(tmp_path / "a.mkv", shades(3), times=[7, 8, 9]), 1) == [0, 1, 2]


def test_concatenated_recordings_with_restarting_timestamps_are_read_to_the_end(tmp_path):
    part = clip(tmp_path / "a.ts", shades(12)).read_bytes()
    (tmp_path / "b.ts").write_bytes(part + part)
    assert len(seconds(tmp_path / "b.ts", 1)) == 6


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, "left top"), (90, "left bottom"), (180, "right bottom"), (-90, "right top")]
)
def test_rotated_videos_yield_upright_frames(tmp_path, rotation, corner):
    image = plain(BLUE)
    image[:24, :32] = RED  # left and top
    (frame,) = sample_frames(clip(tmp_path / "a.mp4", [image], rotation=rotation), fps=1)
    height, width = (64, 48) if rotation in (90, -90) else (48, 64)
    assert frame.image.shape == (height, width, 3)
    x = 8 if "left" in corner else width - 8
    y = 8 if "top" in corner else height - 8
    assert frame.image[y, x, 0] > 150
    assert (frame.image[..., 0] > 150).mean() == pytest.approx(0.25, abs=0.05)


def test_the_color_space_of_the_file_is_used(tmp_path):
    for space in (1, 5):  # BT.709, of HD, and BT.601
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=4)
            stream.width, stream.height, stream.pix_fmt, stream.codec_context.colorspace = 64, 48, "yuv420p", space
            frame = av.VideoFrame.from_ndarray(plain(RED), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=space)
            frame.colorspace = space
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        (frame,) = sample_frames(tmp_path / "a.mp4", fps=1)
        np.testing.assert_allclose(frame.image[24, 32], RED, atol=4)


def test_frames_are_decoded_one_at_a_time(tmp_path):
    path = clip(tmp_path / "a.mp4", shades(20))
    frames = sample_frames(path, fps=4)
    assert next(frames).seconds == 0
    frames.close()  # closes the file
    path.unlink()


def test_videos_are_recognized_by_suffix(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    assert is_video(Path("a.MP4"))
    assert not is_video(Path("a.gif"))
    assert not is_video(tmp_path / "folder.mp4")


# --- what is no video ------------------------------------------------------------------------------------------


def why(path: Path) -> str:
    with pytest.raises(UnreadableError) as caught:
        list(sample_frames(path, fps=1))
    return str(caught.value)


def test_a_file_that_is_not_a_video_is_refused_with_a_reason(tmp_path):
    path = tmp_path / "a.mp4"
    for content in (b"", b"no video\n" * 999, encode(), encode("PNG"), encode("GIF")):
        path.write_bytes(content)
        assert why(path) == "no video in a known format, damaged, or cut short"
    assert why(sound(tmp_path / "b.mp4")) == "no video in it, only sound"
    assert why(tmp_path / "gone.mp4") == f"{tmp_path}/gone.mp4 is not a file"
    whole = clip(tmp_path / "c.avi", shades(4), codec="mpeg4").read_bytes()
    path.write_bytes(whole.replace(b"FMP4", b"none"))
    assert why(path) == "a video in a codec that cannot be decoded"


def test_a_video_without_frames_is_refused(tmp_path):
    path = clip(tmp_path / "a.mp4", shades(8), options={"movflags": "frag_keyframe+empty_moov"})
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + 4])
    assert why(path) == "a video without a frame that can be decoded"
    path = clip(tmp_path / "a.mkv", shades(1))
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\x1f\x43\xb6\x75")])  # the cluster that holds the frame
    assert why(path) == "no video in a known format, damaged, or cut short"


def test_cover_art_is_not_a_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = (
            64,
            48,
            "yuvj420p",
            media_video._ATTACHED_PICTURE,
        )
        container.mux(cover.encode(av.VideoFrame.from_ndarray(plain(RED), format="rgb24")))
        container.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert why(tmp_path / "a.mp4") == "no video in it, only sound"


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {}), ("a.avi", {})],
    ids=["mp4", "mkv", "avi"],
)
def test_a_video_cut_short_is_refused_after_its_frames(tmp_path, name, options):
    noise = list(np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8))
    path = clip(tmp_path / name, noise, codec="mpeg4", options=options)
    assert len(seconds(path, 1)) == 10
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = sample_frames(path, fps=1)
    assert [next(frames).seconds for _ in range(3)] == [0, 1, 2]
    assert why(path).startswith("cut short: its frames end after ")


def test_an_mp4_without_its_end_is_refused(tmp_path):
    path = clip(tmp_path / "a.mp4", shades(40))
    path.write_bytes(path.read_bytes()[:-2000])  # its index, which is written last
    assert why(path) == "no video in a known format, damaged, or cut short"


def test_damaged_bytes_raise_no_other_exception(tmp_path):
    whole, random, path = (
        clip(tmp_path / "a.ts", shades(12)).read_bytes(),
        np.random.default_rng(0),
        tmp_path / "b.ts",
    )
    for _ in range(20):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 30):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UnreadableError):
            assert all(frame.image.dtype == np.uint8 for frame in sample_frames(path, fps=4))


def test_a_packet_of_an_undeclared_stream_is_damage(tmp_path):
    path = clip(tmp_path / "a.ts", shades(40))
    packets = [bytearray(path.read_bytes()[at : at + 188]) for at in range(0, path.stat().st_size, 188)]
    begins = [packet for packet in packets if packet[1:3] == b"\x41\x00"]  # of a frame, in stream 256
    begins[-5][2] = 0x59
    path.write_bytes(b"".join(packets))
    with pytest.raises(UnreadableError, match="no video in a known format, damaged, or cut short"):
        list(sample_frames(path, fps=4))


def test_a_playlist_opens_no_other_file(tmp_path):
    other = clip(tmp_path / "other.ts", shades(4))
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {other}\n",
    ):
        (tmp_path / "list.mp4").write_text(text)
        assert why(tmp_path / "list.mp4") == "no video in a known format, damaged, or cut short"


# --- one answer for all frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.75], 0.75),
        ([0.25, 0.75], 0.5),
        ([0.25, 0.75, 0.5], 0.5),
        ([0.25, 0.75, 0.5, 0.001, 0.001], 0.5),  # at least three frames
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96], 0.84),  # a third is rounded up
        ([*[0.001] * 8, *[0.999] * 4], 0.999),  # a third counts in full
        ([*[0.001] * 11, 0.999], 0.2505),  # a single frame does not dominate
    ],
)
def test_the_most_fake_looking_third_is_aggregated(probabilities, expected):
    logits = logit(np.random.default_rng(0).permutation(probabilities))
    assert expit(video.aggregate_logits(logits)) == pytest.approx(expected, abs=1e-6)


def scorer_at(point: OperatingPoint, categories: list[str]) -> Scorer:
    return Scorer("a", Squash(32), 4, categories, "digest", {}.get, point)


def test_a_video_has_the_verdict_of_its_aggregated_logit_and_the_mean_category():
    scores = {
        "logit": np.array([-2.0, 4.0, 0.0, 2.0], np.float32),
        "verdict": np.array([0, 1, 2, 1]),
        "category_probabilities": np.array([[0.4, 0.6], [0.9, 0.1], [0.8, 0.2], [0.5, 0.5]], np.float32),
    }
    curve = video.Curve(np.arange(4.0), scores, 4)
    mean = expit([2, 1, 0]).mean()  # of logits 4, 2 and 0 at temperature 2
    assert 1.7 < 2 * logit(mean) < 1.8, "not the mean logit, which is 2"
    for limits, verdict in [((0, 1.7), "fake"), ((0, 1.8), "unsure"), ((1.8, 1.9), "real")]:
        point = OperatingPoint(2.0, Limits(*limits))
        result = video.summarize(Path("a.mp4"), curve, scorer_at(point, ["animals", "vehicles"]))
        assert (result.path, result.verdict, result.category) == ("a.mp4", verdict, "animals")
        assert result.fake_probability == pytest.approx(mean, abs=1e-7)
        assert result.category_probability == 0.65
        assert result.category_probabilities == pytest.approx({"animals": 0.65, "vehicles": 0.35})
        result = video.summarize(Path("a.mp4"), curve, scorer_at(point, []))
        assert (result.verdict, result.category) == (verdict, None)
    own = OperatingPoint(2.0, Limits(0, 1.7), {"animals": Limits(1.8, 1.9)})
    assert video.summarize(Path("a.mp4"), curve, scorer_at(own, ["animals", "vehicles"])).verdict == "real"


def test_frames_too_small_for_a_verdict_do_not_count():
    scores = {"logit": np.array([9.0, -1.0, -1.0], np.float32), "verdict": np.array([2, 0, 0])}
    scorer = replace(scorer_at(OperatingPoint(), []), min_side=32)
    curve = video.Curve(np.arange(3.0), scores, 3, sides=np.array([20, 50, 50]))
    result = video.summarize(Path("a.mp4"), curve, scorer)
    assert (result.verdict, result.reason) == ("real", "")
    assert result.fake_probability == pytest.approx(expit(-1))
    result = video.summarize(Path("a.mp4"), replace(curve, sides=np.array([20, 25, 31])), scorer)
    assert (result.verdict, result.reason) == ("unsure", "its shorter side has 31 pixels, fewer than 32")


@pytest.mark.parametrize("temperature", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("of_all", [-50.0, -3.0, 0.0, 3.0, 50.0])
def test_identical_frames_keep_their_verdict_at_any_confidence(temperature, of_all):
    scores = {"logit": np.full(4, of_all, np.float32), "verdict": np.array([1] * 4)}
    for (below, above), verdict in (((-2, -1), "fake"), ((-1, 1), "unsure"), ((1, 2), "real")):
        scorer = scorer_at(OperatingPoint(temperature, Limits(of_all + below, of_all + above)), [])
        assert video.summarize(Path("a.mp4"), video.Curve(np.arange(4.0), scores, 4), scorer).verdict == verdict


# --- ddk predict -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorer(run, records, tmp_path_factory):
    return scorer_for_run(with_each_verdict(run, records, tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def images():
    return list(np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8))


def predictions(scorer: Scorer, paths: list[Path], folder: Path, finder=None) -> list[prediction.Prediction]:
    """Predictions for images and videos, at two frames per second."""
    curves = video.curve_paths([path for path in paths if media_video.is_video(path)], folder)
    batches = video.predict_batches(scorer, map(str, paths), sampling=video.Sampling(2, finder), curves=curves)
    return [row for rows in batches for row in rows]


def test_a_frame_scores_like_the_same_image(scorer, images, tmp_path):
    curve = video.score_frames(scorer, clip(tmp_path / "a.mkv", images, codec="ffv1"), video.Sampling(4))
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index:02}.png")
    rows = list(prediction.predict(scorer, sorted(tmp_path.glob("*.png"))))
    assert len(curve.seconds) == len(rows) == 20 > 2 * scorer.batch
    np.testing.assert_allclose(curve.scores["fake_probability"], [row.fake_probability for row in rows], atol=1e-6)
    assert curve.verdicts == [row.verdict for row in rows]
    assert len(set(curve.verdicts)) > 1


def test_a_video_of_one_frame_has_its_score(scorer, images, tmp_path):
    curve = video.score_frames(scorer, clip(tmp_path / "a.mkv", images, codec="ffv1"), video.Sampling(4))
    for index, verdict in enumerate(curve.verdicts):
        one = {name: values[index : index + 1] for name, values in curve.scores.items()}
        result = video.summarize(tmp_path, video.Curve(np.zeros(1), one, 1), scorer)
        assert result.verdict == verdict
        assert result.fake_probability == pytest.approx(one["fake_probability"][0], abs=1e-6)
        assert list(result.category_probabilities.values()) == pytest.approx(
            one["category_probabilities"][0], abs=1e-6
        )


def test_images_and_videos_are_scored_in_order_and_curves_written(scorer, images, tmp_path, data):
    good = clip(tmp_path / "a.mkv", images, codec="ffv1")
    (tmp_path / "b.mp4").write_bytes(b"none")
    (tmp_path / "other").mkdir()
    again = clip(tmp_path / "other/a.mkv", images[:3], codec="ffv1")
    image = sorted((data / "test").iterdir())[0]
    paths = [image, good, tmp_path / "b.mp4", image, again]
    rows = predictions(scorer, paths, tmp_path / "curves")
    assert [row.path for row in rows] == [str(path) for path in paths]
    assert rows[0] == rows[3]
    assert [row.error for row in rows if row.error] == ["no video in a known format, damaged, or cut short"]
    assert rows[2].fake_probability is None
    names = ["a.mkv-2.csv", "a.mkv-2.png", "a.mkv.csv", "a.mkv.png"]
    assert sorted(path.name for path in (tmp_path / "curves").iterdir()) == names
    table = pd.read_csv(tmp_path / "curves/a.mkv.csv")
    assert list(table) == ["seconds", "logit", "fake_probability", "verdict"]
    assert list(table["seconds"]) == [index / 2 for index in range(10)]
    assert rows[1].fake_probability == pytest.approx(table["fake_probability"].nlargest(4).mean(), abs=1e-6)
    assert rows[1].verdict in ("real", "unsure", "fake")
    with Image.open(tmp_path / "curves/a.mkv.png") as figure:
        assert figure.size == (1152, 518)


def test_a_long_name_has_a_curve(scorer, images, tmp_path):
    path = clip(tmp_path / "a.mkv", images[:3], codec="ffv1").rename(tmp_path / f"{'é' * 122}.mkv")
    (row,) = predictions(scorer, [path], tmp_path / "curves")
    assert not row.error
    assert sorted(one.suffix for one in (tmp_path / "curves").iterdir()) == [".csv", ".png"]


@pytest.fixture(scope="module")
def colours():
    """A scorer for which red is fake and blue is real."""

    def score(found: np.ndarray) -> dict[str, np.ndarray]:
        logit = (found[..., 0].astype(np.float32) - found[..., 2]).mean(axis=(1, 2)) / 40
        return {"logit": logit, "fake_probability": 1 / (1 + np.exp(-logit)), "verdict": (logit > 0).astype(int)}

    return Scorer("colours", Squash(32), 4, [], "digest", score)


@pytest.mark.parametrize("fake_share", [0.0, 0.5, 1.0])
def test_a_half_fake_video_is_fake(fake_share, colours, tmp_path):
    reds = round(24 * fake_share)
    path = clip(tmp_path / "a.mp4", [plain(BLUE)] * (24 - reds) + [plain(RED)] * reds)
    (row,) = predictions(colours, [path], tmp_path / "curves")
    assert row.verdict == ("fake" if fake_share else "real")
    table = pd.read_csv(tmp_path / "curves/a.mp4.csv")
    assert (table["verdict"] == "fake").mean() == fake_share


def faces_on(colour, *heights) -> np.ndarray:
    """A frame of one color with portraits of these heights side by side; all but the first are tinted red."""
    frame = plain(colour, 240, 640)
    for index, height in enumerate(heights):
        image = portrait(height).copy()
        if index:
            image[..., 2] //= 3
        frame[:height, 320 * index : 320 * index + image.shape[1]] = image
    return frame


def test_faces_are_scored_in_place_of_frames(colours, finder, tmp_path):
    two, one, none = faces_on(BLUE, 240, 200), faces_on(BLUE, 240), plain(BLUE, 240, 640)
    path = clip(tmp_path / "a.mkv", [two, none, one, none, two, none], codec="ffv1", rate=2)
    (row,) = predictions(colours, [path], tmp_path / "curves", finder)
    table = pd.read_csv(tmp_path / "curves/a.mkv.csv")
    assert list(table) == ["seconds", "left", "top", "side", "logit", "fake_probability", "verdict"]
    assert list(table["seconds"]) == [0, 0, 1, 2, 2]
    assert [left // 320 for left in table["left"]] == [0, 1, 0, 0, 1]
    assert (table["side"] < 130).all()
    for index, frame in ((0, two), (1, two), (2, one)):
        left, top, side = table.loc[index, ["left", "top", "side"]].astype(int)
        alone = colours.score(resize(frame[top : top + side, left : left + side], 32).numpy()[None])
        assert table["logit"][index] == pytest.approx(alone["logit"][0], abs=1e-5)
    assert (table["fake_probability"][[1, 4]] > table["fake_probability"][0] + 0.1).all(), "the red one"
    assert row.fake_probability == pytest.approx(table["fake_probability"].nlargest(3).mean(), abs=1e-6)
    with Image.open(tmp_path / "curves/a.mkv.png") as figure:
        assert figure.size == (1152, 518)


def test_a_video_without_a_face_has_an_error_and_no_curve(colours, finder, tmp_path):
    path = clip(tmp_path / "a.mp4", shades(8))
    (row,) = predictions(colours, [path], tmp_path / "curves", finder)
    assert (row.error, row.verdict) == ("no face in any of 4 frames", None)
    assert not (tmp_path / "curves").exists()


def test_the_command_finds_faces_with_the_given_detector(run, yunet, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.mkv", [faces_on(BLUE, 240, 200)] * 4, codec="ffv1")
    (tmp_path / "b.jpg").write_bytes(encode())

    def ddk(*arguments) -> str:
        main(["predict", *arguments, "--run", str(run.folder)], standalone_mode=False)
        return capsys.readouterr().out

    output = json.loads(ddk("a.mkv", "b.jpg", "--faces", str(yunet), "--json"))
    assert (output["images"], output["errors"]) == (2, 0)
    assert len(pd.read_csv("artifacts/predictions-videos/a.mkv.csv")) == 4
    clip(tmp_path / "none.mp4", shades(8))
    with pytest.raises(click.ClickException, match=r"no image could be scored; none\.csv says why, for each"):
        ddk("none.mp4", "--faces", str(yunet), "--output", "none.csv")
    with pytest.raises(click.ClickException, match="--faces is for videos, and none is named; leave it out"):
        ddk("b.jpg", "--faces", str(yunet))
    monkeypatch.setattr(prediction, "predict_batches", None)  # fails at the image, after the video
    with pytest.raises(TypeError):
        ddk("a.mkv", "b.jpg", "--output", "x.csv", "--faces", str(yunet))
    was = r"was started with videos at 2 frames a second, the faces in them \(8f2383e4dd3c\), not at 2 .*, whole;"
    with pytest.raises(click.ClickException, match=was):
        ddk("a.mkv", "b.jpg", "--output", "x.csv", "--resume")
    with pytest.raises(click.ClickException, match=r"b\.jpg is not a YuNet model"):
        ddk("a.mkv", "--overwrite", "--faces", "b.jpg")


def test_curves_are_replaced_only_with_overwrite(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.mp4", shades(4))
    clip(tmp_path / "b.mp4", shades(4))
    (tmp_path / "x-videos").mkdir()
    (tmp_path / "x-videos/a.mp4.csv").write_text("notes")

    def ddk(*arguments) -> dict:
        main(["predict", *arguments, "--json", "--run", str(run.folder)], standalone_mode=False)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    message = "^x-videos, where the frames of videos would be, exists; replace it with --overwrite, or name another"
    with pytest.raises(click.ClickException, match=message):
        ddk("a.mp4", "--output", "x.csv")
    assert (tmp_path / "x-videos/a.mp4.csv").read_text() == "notes"
    ddk("a.mp4", "--output", "x.csv", "--overwrite")
    ddk("b.mp4", "./b.mp4", "--output", "x.csv", "--overwrite")
    assert sorted(one.name for one in (tmp_path / "x-videos").iterdir()) == ["b.mp4.csv", "b.mp4.png"]
    (tmp_path / "y-videos").touch()
    with pytest.raises(click.ClickException, match=r"y-videos, where .* exists; name another output with --output"):
        ddk("a.mp4", "--output", "y.csv", "--overwrite")


def test_the_command_scores_named_videos_but_not_those_in_folders(run, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inbox").mkdir()
    clip(tmp_path / "inbox/b.mp4", images)
    (tmp_path / "inbox/c.jpg").write_bytes(encode())
    clip(tmp_path / "a.mp4", images)

    def ddk(*arguments) -> str:
        main(["predict", *arguments, "--run", str(run.folder)], standalone_mode=False)
        return capsys.readouterr().out

    lines = ddk("a.mp4", "--fps", "4").splitlines()
    assert lines[0].startswith("a.mp4: ")
    assert lines[-1] == "Frames of videos in artifacts/predictions-videos"
    assert len(pd.read_csv("artifacts/predictions-videos/a.mp4.csv")) == 20
    output = json.loads(ddk("inbox", "--overwrite", "--json"))
    assert (output["images"], "videos" in output) == (1, False)
    output = json.loads(ddk("inbox", "a.mp4", "--output", "x.csv", "--json"))
    assert (output["images"], output["videos"]) == (2, "x-videos")


def test_without_the_library_one_line_names_the_extra(scorer, tmp_path, monkeypatch):
    path = clip(tmp_path / "a.mp4", shades(2))
    monkeypatch.setattr(media_video, "av", None)
    with pytest.raises(DataError, match=r'a\.mp4 is a video; to score videos: pip install "ddkeras\[video\]"'):
        video.curve_paths([path], tmp_path)
