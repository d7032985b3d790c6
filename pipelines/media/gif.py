"""Just enough of the GIF format to tell a plain first image, and to cut an animation off after it."""


def is_plain(file: bytes) -> bool:
    """Whether the first image of a GIF covers its screen and none of it is transparent; False if it is cut short."""
    try:
        at = 13 + _colour_table_bytes(file[10])
        while file[at] == 0x21:  # an extension
            if file[at + 1] == 0xF9 and file[at + 3] & 1:  # graphic control, with a transparent index
                return False
            at = _after_blocks(file, at + 2)
        return file[at] == 0x2C and file[at + 1 : at + 9] == bytes(4) + file[6:10]
    except IndexError:
        return False


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
