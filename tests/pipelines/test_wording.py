"""Numbers in sentences."""

from pipelines.wording import count_of


def test_one_is_singular_and_all_else_plural():
    counts = [count_of(number, "image") for number in (0, 1, 2, 1234)]
    assert counts == ["0 images", "1 image", "2 images", "1,234 images"]
