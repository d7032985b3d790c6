"""The one exception this package raises for what a user can put right."""


class DataError(ValueError):
    """Something is wrong with the data; the message is one line that names it and says what to do."""
