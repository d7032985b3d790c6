"""Detectors of generated images: trained on your own data, evaluated honestly, exported to a server.

`training`, `evaluation`, `prediction` and `export` are the four things one does; each works on a run (`runs`), made
from a recipe (`config`). Import the room you need; importing `ddkeras` alone loads nothing heavy.
"""

__version__ = "0.1.0"
