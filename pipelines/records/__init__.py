"""TFRecord shards: written from examples, opened, queried and checked for corruption."""
