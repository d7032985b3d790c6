"""The exceptions for requests that cannot be fulfilled."""


class ConfigError(ValueError):
    """A request cannot be fulfilled; the message is one line that names the cause and the remedy."""


class DivergedError(ConfigError):
    """A training ended with weights that are worse than guessing."""
