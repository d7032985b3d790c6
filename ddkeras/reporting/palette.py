"""The colours of pages and figures, by meaning.

Real is blue and fake is orange, a pair that colour-blind readers can tell apart, and nothing else has these colours;
`other` is for what has to stand out beside them.
"""

LIGHT = {
    "ink": "#1d2330",
    "dim": "#5b6475",
    "page": "#fbfbfc",
    "card": "#ffffff",
    "line": "#dfe3ea",
    "real": "#2f6fc4",
    "fake": "#c2570c",
    "other": "#7d4fb0",
    "ok": "#1c7c43",
    "warn": "#955f00",
    "fail": "#b3261e",
}
DARK = {
    "ink": "#e7eaf0",
    "dim": "#a0a9ba",
    "page": "#14171d",
    "card": "#1c2028",
    "line": "#343b48",
    "real": "#74a9f0",
    "fake": "#f0975a",
    "other": "#c39bf0",
    "ok": "#5fc98b",
    "warn": "#e5b04c",
    "fail": "#ff8a80",
}
PAPER = LIGHT | {"ink": "#000000", "dim": "#444444", "page": "#ffffff", "line": "#bbbbbb"}
