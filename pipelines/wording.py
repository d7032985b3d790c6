"""Numbers in sentences."""


def count_of(number: int, noun: str) -> str:
    """A number with its noun: `1 image`, `2 images`, `1,234 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
