"""Just enough of the GIF format to cut an animation off after its first image."""


def first_image(file: bytes) -> bytes:
    """Cut a GIF off after its first image, the one that is decoded; everything else is returned unchanged.

    TensorFlow decodes all frames before it takes the first: a file of one megabyte may take hours, and all memory.
    """
    if not file.startswith(b"GIF8"):
        return file
    try:
        at = 13 + _colour_table_bytes(file[10])
        while file[at] == 0x21:  # an extension
            at = _after_blocks(file, at + 2)
        if file[at] == 0x2C:  # an image
            at = _after_blocks(file, at + 11 + _colour_table_bytes(file[at + 9]))
            return file[:at] + b";"
    except IndexError:  # truncated within the first image, so there is no second
        pass
    return file


def _colour_table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(file: bytes, at: int) -> int:
    """The position after the sub-blocks that begin at `at`."""
    while file[at]:
        at += 1 + file[at]
    return at + 1
