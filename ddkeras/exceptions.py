"""The one exception this package raises for what a user asked for and cannot have."""


class ConfigError(ValueError):
    """Something asked for cannot be had; the message is one line that names it and says what to do."""
