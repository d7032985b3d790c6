"""Detectors of generated images: trained on your own data, evaluated honestly, exported to a server.

    import ddkeras as ddk

    records = ddk.convert("data/")
    run = ddk.fit(records, backbone="small-cnn", epochs=12)
    print(ddk.evaluate(run, records)["validation"].auc)
    for row in ddk.predict(run, "inbox/"):
        print(row.path, row.verdict, row.fake_probability)
    ddk.export(run)

Importing the package loads nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddkeras.api import audit, convert, evaluate, explain, export, fit, load, open_records, predict
    from ddkeras.config import Recipe

__version__ = "0.2.0"
__all__ = [
    "Recipe",
    "audit",
    "convert",
    "evaluate",
    "explain",
    "export",
    "fit",
    "load",
    "open_records",
    "predict",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("ddkeras.config" if name == "Recipe" else "ddkeras.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
