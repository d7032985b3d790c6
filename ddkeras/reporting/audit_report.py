"""An audit as one HTML page that needs nothing else: no network, no script, light or dark as the reader likes it.

The figures are drawn as SVG by hand rather than by matplotlib, so that their colours follow the page's.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape

from ddkeras.reporting.html import sentence, table, thumbnail, whole

_QUESTIONS = {"label": "fake or real", "category": "which category"}
_GROUPS = {
    "all": "all of it",
    "file": "the file: codec and size",
    "codec": "codec",
    "size": "size",
    "name": "file name",
}
_PAIRS = {
    "exact_across_labels": "The same bytes, labelled both real and fake",
    "exact_across_splits": "The same bytes in two splits",
    "near_across_splits": "Nearly the same picture in two splits",
    "near_across_labels": "A fake beside the photo it was made from, in one split (no leak)",
}
_HISTOGRAMS = {
    "height": "height, pixels",
    "width": "width, pixels",
    "jpeg_quality": "JPEG quality",
    "bytes_per_pixel": "file size, bytes per pixel",
}
_SOURCES = 40  # rows of the table of sources


def page(result: dict, thumbnails: Mapping[str, bytes]) -> str:
    """Put an audit into HTML.

    Args:
        result: as `pipelines.audit.report.judge` returns it.
        thumbnails: JPEGs of at most 160 pixels, by the paths of the pairs in `result`.
    """
    sections = [
        _head(result),
        _findings(result["findings"]),
        "".join(f'<p class="dim">{sentence(note)}</p>' for note in result["notes"]),
        _shortcuts(result),
        _leaks(result["leaks"], thumbnails),
        _balance(result["balance"]),
        _method(result),
    ]
    return whole(f"Audit of {result['data']}", sections)


def _head(result: dict) -> str:
    what = f"{result['images']:,} images in a {'folder of records' if result['kind'] == 'records' else 'data folder'}"
    if "fingerprint" in result:
        what += f", fingerprint {result['fingerprint'][:16]}"
    verdict = result["verdict"]
    return (
        f'<h1>Audit of {escape(result["data"])}</h1>\n<p class="dim">{escape(what)}</p>\n'
        f'<div class="verdict {verdict}"><p><strong class="{verdict}">{verdict}</strong> &ensp;'
        f"{sentence(result['meaning'])}</p></div>"
    )


def _findings(findings: list[dict]) -> str:
    items = [
        f'<li><b class="{found["verdict"]}">{found["verdict"]}</b> {sentence(found["text"])} '
        f'<span class="dim">{_commands(sentence(found["remedy"]))}</span></li>'
        for found in findings
    ]
    return f'<ul class="findings">{"".join(items)}</ul>' if items else ""


def _commands(text: str) -> str:
    """Sets commands in a text apart, so that they are not broken at their hyphens."""
    return re.sub(r"ddk [a-z]+(-[a-z]+)*( [A-Z]+)?( --[a-z]+(-[a-z]+)*)*", r"<code>\g<0></code>", text)


# --- shortcuts -------------------------------------------------------------------------------------------------


def _shortcuts(result: dict) -> str:
    rows = list(_shortcut_rows(result))
    if not rows:
        return "<h2>Shortcuts</h2>\n<p>There is no labelled image to ask.</p>"
    header = ["shown to the classifier", "AUC", f"0.5 to 1, bounds {result['warn']:g} and {result['fail']:g}"]
    shown = table([*header, "", "carried by"], rows, numbers=["AUC"])
    return (
        "<h2>Shortcuts</h2>\n<p>How well a classifier that never sees a pixel tells one from the other: 0.5 is "
        f"chance, 1 is always. Asked of {result['sampled']:,} labelled images; the bar is the 95% interval. What the "
        f"files give away, a detector may learn in place of what fakes look like.</p>\n{shown}"
    )


def _shortcut_rows(result: dict) -> Iterator[str]:
    asked = None
    for row in result["shortcuts"]:
        question = _QUESTIONS[row["target"]] + (f", in {row['within']}" if row["within"] else "")
        if question != asked:
            asked = question
            yield (
                f'<tr class="head"><td colspan="5">{escape(question)} <span class="dim">({row["images"]:,} images)'
                "</span></td></tr>"
            )
        if row["auc"] is None:
            if row["group"] == "all":
                yield '<tr><td colspan="5" class="dim">too few images of a class to say</td></tr>'
            continue
        verdict = row["verdict"] or ""
        carriers = _carriers(row["features"]) if row["group"] in ("file", "name") else ""  # the others repeat these
        yield (
            f'<tr><td>{_GROUPS[row["group"]]}</td><td class="number">{row["auc"]:.3f}</td>'
            f"<td>{_interval(row, result['warn'], result['fail'])}</td>"
            f'<td class="{verdict}">{verdict}</td><td class="long">{carriers}</td></tr>'
        )


def _interval(row: dict, warn: float, fail: float) -> str:
    """The AUC and its interval on a line from 0.5 to 1, with the two bounds."""
    width, low, high = 180, max(row["low"], 0.5), max(row["high"], 0.5)

    def x(auc: float) -> float:
        return round((max(auc, 0.5) - 0.5) * 2 * width, 1)

    bounds = "".join(
        f'<line x1="{x(bound)}" x2="{x(bound)}" y1="2" y2="18" stroke="var(--{name})" stroke-dasharray="2 2"/>'
        for name, bound in (("warn", warn), ("fail", fail))
    )
    title = f"AUC {row['auc']:.3f}, 95% interval {row['low']:.3f} to {row['high']:.3f}"
    return (
        f'<svg width="{width + 10}" height="20" viewBox="-5 0 {width + 10} 20" role="img" aria-label="{title}">'
        f'<title>{title}</title><line x1="0" x2="{width}" y1="10" y2="10" stroke="var(--line)"/>{bounds}'
        f'<line x1="{x(low)}" x2="{x(high)}" y1="10" y2="10" stroke="var(--ink)" stroke-width="3"/>'
        f'<circle cx="{x(row["auc"])}" cy="10" r="4.5" fill="var(--ink)"/></svg>'
    )


def _carriers(features: list[dict]) -> str:
    parts = []
    for feature in features[:3]:
        name = feature["name"].replace("_", " ")
        name = f"median {name}" if feature["kind"] == "median" else f"{name} {feature['kind']}"
        values = ", ".join(f"{kind} {value}" for kind, value in list(feature["values"].items())[:4])
        parts.append(f'{escape(name)} <span class="dim">({escape(values)})</span>')
    return "; ".join(parts)


# --- leaks -----------------------------------------------------------------------------------------------------


def _leaks(leaks: dict, thumbnails: Mapping[str, bytes]) -> str:
    parts = ["<h2>Leaks</h2>"]
    for kind, title in _PAIRS.items():
        found = leaks[kind]
        if not found["images"]:
            continue
        counted = ", ".join(f"{number:,} {name}" for name, number in found["images"].items())
        parts.append(f'<h3>{title} <span class="dim">({escape(counted)})</span></h3>')
        cards = [_pair(pair, kind.startswith("near"), thumbnails) for pair in found["pairs"]]
        parts.append(f'<div class="pairs">{"".join(cards)}</div>')
    if len(parts) == 1:
        parts.append("<p>No image was found twice: in no two splits, under no two labels.</p>")
    if leaks["flat"]:
        parts.append(
            f'<p class="dim">{leaks["flat"]:,} images show next to nothing, such as one even colour, and were '
            "compared byte for byte only.</p>"
        )
    return "\n".join(parts)


def _pair(pair: dict, is_near: bool, thumbnails: Mapping[str, bytes]) -> str:
    similarity = f"correlation {pair['similarity']:.3f}" if is_near else "byte for byte"
    sides = "".join(_side(pair[side], thumbnails.get(pair[side]["path"])) for side in "ab")
    return f'<figure><figcaption>{similarity}</figcaption><div class="pair">{sides}</div></figure>'


def _side(side: dict, jpeg: bytes | None) -> str:
    where = " ".join(filter(None, (side["split"], side["label"])))
    return f"<div>{thumbnail(jpeg)}<div>{escape(where)}<br>{escape(side['path'])}</div></div>"


# --- balance ---------------------------------------------------------------------------------------------------


def _balance(balance: dict) -> str:
    charts = [_histogram(_HISTOGRAMS[name], bins) for name, bins in balance["histograms"].items() if bins]
    key = '<span class="key" style="background: var(--real)"></span>real'
    key += '<span class="key" style="background: var(--fake)"></span>fake'
    parts = ["<h2>Balance</h2>", _cells(balance)]
    if balance["formats"]:
        parts += ["<h3>Formats</h3>", _formats(balance["formats"])]
    if charts:
        parts += [f"<h3>Sizes and quality <span class='dim'>(share of each label){key}</span></h3>"]
        parts += [f'<div class="charts">{"".join(charts)}</div>']
    return "\n".join([*parts, _sources(balance["counts"])])


def _cells(balance: dict) -> str:
    cells = Counter()
    for row in balance["counts"]:
        cells[row["split"], row["label"], row["category"]] += row["images"]
    scarce = {(row["split"], row["label"], row["category"]) for row in balance["empty"] + balance["tiny"]}
    rows = []
    categories = sorted({category for _, _, category in cells})
    for split, label in sorted({cell[:2] for cell in [*cells, *scarce]}, key=_place):
        numbers = [cells[split, label, category] for category in categories]
        columns = [
            _count(number, (split, label, category) in scarce)
            for category, number in zip(categories, numbers, strict=True)
        ]
        rows.append(f"<tr><td>{split}</td><td>{label}</td>{''.join(columns)}{_count(sum(numbers), False)}</tr>")
    names = [category or "no class" for category in categories]
    return table(["split", "label", *names, "together"], rows, numbers=[*names, "together"])


def _place(cell: tuple[str, str]) -> tuple[int, int]:
    split, label = cell
    return ("train", "validation", "test").index(split), ("real", "fake", "unlabelled").index(label)


def _count(number: int, is_scarce: bool) -> str:
    shown = f"{number:,}" if number or is_scarce else ""
    return f'<td class="number{" warn" if is_scarce else ""}">{shown}</td>'


def _formats(formats: dict[str, dict[str, int]]) -> str:
    kinds = sorted({kind for numbers in formats.values() for kind in numbers})
    rows = [
        f"<tr><td>{label}</td>{''.join(_count(numbers.get(kind, 0), False) for kind in kinds)}</tr>"
        for label, numbers in formats.items()
    ]
    return table(["label", *kinds], rows, numbers=kinds)


def _sources(counts: list[dict]) -> str:
    sources = Counter()
    for row in counts:
        sources[row["source"], row["label"]] += row["images"]
    if {source for source, _ in sources} == {""}:
        return ""
    rows = [
        f"<tr><td>{escape(source or 'unknown')}</td><td>{label}</td>{_count(number, False)}</tr>"
        for (source, label), number in sources.most_common(_SOURCES)
    ]
    rest = len(sources) - len(rows)
    note = f'<p class="dim">and {rest} smaller ones, in audit.json</p>' if rest else ""
    return f"<h3>Sources</h3>\n{table(['source', 'label', 'images'], rows, numbers=['images'])}{note}"


def _histogram(title: str, bins: dict) -> str:
    """Real upwards and fake downwards from one line, as shares of each, so that the two can be compared."""
    width, half = 300, 60
    step = width / (len(bins["edges"]) - 1)
    shares = {label: [number / (sum(bins[label]) or 1) for number in bins[label]] for label in ("real", "fake")}
    highest = max(*shares["real"], *shares["fake"])
    bars = []
    for label, parts in shares.items():
        for index, share in enumerate(parts):
            height = round(half * share / highest, 1)
            top = half - height if label == "real" else half
            if height:
                bars.append(
                    f'<rect x="{index * step + 0.5:.1f}" y="{top:.1f}" width="{step - 1:.1f}" height="{height}" '
                    f'fill="var(--{label})"/>'
                )
    low, high = bins["low"], bins["high"]
    ends = [(0, "start", low), (width, "end", high)] if low < high else [(width / 2, "middle", low)]
    ticks = "".join(
        f'<text x="{x}" y="{2 * half + 16}" text-anchor="{anchor}">{value:.4g}</text>' for x, anchor, value in ends
    )
    return (
        f'<figure><figcaption>{title}</figcaption><svg viewBox="0 0 {width} {2 * half + 20}" width="100%" role="img" '
        f'aria-label="{title}, real above and fake below the line">{"".join(bars)}'
        f'<line x1="0" x2="{width}" y1="{half}" y2="{half}" stroke="var(--dim)"/>{ticks}</svg></figure>'
    )


# --- how it was done -------------------------------------------------------------------------------------------


def _method(result: dict) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        "<h2>How this was measured</h2>\n<p>A gradient-boosted classifier was cross-validated in five folds on what "
        "the headers of the files say; the intervals are from a bootstrap. File names can only warn, since no model "
        "is shown them. Copies are told by SHA-256, near-duplicates by their low frequencies: a coarse hash and then "
        "a correlation of 0.93 or more. That survives compression and resizing, but not a crop, a turn or a mirror "
        "image. The size of equalised files is left out: all went through one encoder, so it is about the picture."
        "</p>\n"
        f'<p class="dim">Seed {result["seed"]}; {escape(versions)}.</p>'
    )
