"""The DejaVu fonts, which come with matplotlib."""

from pathlib import Path

import matplotlib

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
