"""The exception for requests that cannot be fulfilled."""


class ConfigError(ValueError):
    """A request cannot be fulfilled; the message is one line that names the cause and the remedy."""
