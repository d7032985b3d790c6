"""The exception for everything about the data that the user can fix."""


class DataError(ValueError):
    """Something is wrong with the data; the message is one line that names it and the remedy."""
