"""How a GIF is laid out: enough of it to keep the first of its images alone."""


def first_image(file: bytes) -> bytes:
    """A GIF cut off after its first image, the one that is decoded; everything else as it is.

    TensorFlow decodes all frames before it takes the first: a file of one megabyte may take hours, and all memory.
    """
    if not file.startswith(b"GIF8"):
        return file
    try:
        at = 13 + _colours(file[10])
        while file[at] == 0x21:  # an extension
            at = _after_blocks(file, at + 2)
        if file[at] == 0x2C:
            at = _after_blocks(file, at + 11 + _colours(file[at + 9]))
            return file[:at] + b";"
    except IndexError:  # it ends within the first image, so that no second follows
        pass
    return file


def _colours(flags: int) -> int:
    """How many bytes the table of colours takes that the flags tell of."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(file: bytes, at: int) -> int:
    while file[at]:
        at += 1 + file[at]
    return at + 1
