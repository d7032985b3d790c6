"""An audit as one HTML page that needs nothing else: no network, no script, light or dark as the reader likes it.

The figures are drawn as SVG by hand rather than by matplotlib, so that their colours follow the page's.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from html import escape

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

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --dim: #5b6475; --page: #fbfbfc; --card: #ffffff; --line: #dfe3ea;
  --real: #2f6fc4; --fake: #c2570c; --ok: #1c7c43; --warn: #955f00; --fail: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --dim: #a0a9ba; --page: #14171d; --card: #1c2028;
  --line: #343b48; --real: #74a9f0; --fake: #f0975a; --ok: #5fc98b; --warn: #e5b04c; --fail: #ff8a80; } }
@media print { :root { color-scheme: light; --ink: #000; --dim: #444; --page: #fff; --card: #fff; --line: #bbb;
  --real: #2f6fc4; --fake: #c2570c; --ok: #1c7c43; --warn: #955f00; --fail: #b3261e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p, ul { margin: .5rem 0; max-width: 48rem; }
.dim, caption, th { color: var(--dim); }
.verdict { border: 1px solid var(--line); border-left: .4rem solid; border-radius: .4rem; background: var(--card);
  padding: .9rem 1.1rem; margin: 1.25rem 0; }
.verdict p { color: var(--ink); margin: 0; max-width: none; }
.verdict strong { text-transform: uppercase; letter-spacing: .04em; }
.ok { color: var(--ok); } .warn { color: var(--warn); } .fail { color: var(--fail); }
.findings { list-style: none; padding: 0; max-width: none; }
.findings li { padding: .6rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
code { font: 0.9em ui-monospace, "DejaVu Sans Mono", monospace; white-space: nowrap; }
.findings b { display: inline-block; min-width: 3rem; text-transform: uppercase; font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .25rem 0; }
th { font-weight: 600; text-align: left; white-space: nowrap; }
td.long { min-width: 18rem; }
th, td { padding: .35rem 1.4rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.head td { font-weight: 600; border-bottom: 0; padding-top: 1rem; }
svg { display: block; overflow: visible; }
svg text { fill: var(--dim); font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: .15em; margin: 0 .35em 0 .8em; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem 1rem; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--card); break-inside: avoid; }
figcaption { font-size: .85rem; color: var(--dim); margin-bottom: .4rem; overflow-wrap: anywhere; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; }
.pair img, .pair .none { display: block; width: 160px; height: 160px; max-width: 100%; object-fit: contain;
  background: var(--page); }
.pair .none { display: grid; place-items: center; color: var(--dim); font-size: .8rem; }
.pair div div { font-size: .8rem; overflow-wrap: anywhere; }
@media print { html { font-size: 11px; } body { padding: 0; } .scroll { overflow: visible; } td.long { min-width: 0; }
  h2, h3, tr.head { break-after: avoid; } .charts, .pairs { grid-template-columns: 1fr 1fr; } }
"""


def page(result: dict, thumbnails: Mapping[str, bytes]) -> str:
    """Put an audit into HTML.

    Args:
        result: as `pipelines.audit.judge` returns it.
        thumbnails: JPEGs of at most 160 pixels, by the paths of the pairs in `result`.
    """
    sections = [
        _head(result),
        _findings(result["findings"]),
        "".join(f'<p class="dim">{_sentence(note)}</p>' for note in result["notes"]),
        _shortcuts(result),
        _leaks(result["leaks"], thumbnails),
        _balance(result["balance"]),
        _method(result),
    ]
    title = f"Audit of {escape(result['data'])}"
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n<body>\n" + "\n".join(sections) + "\n</body>\n</html>\n"
    )


def _head(result: dict) -> str:
    what = f"{result['images']:,} images in a {'folder of records' if result['kind'] == 'records' else 'data folder'}"
    if "fingerprint" in result:
        what += f", fingerprint {result['fingerprint'][:16]}"
    verdict = result["verdict"]
    return (
        f'<h1>Audit of {escape(result["data"])}</h1>\n<p class="dim">{escape(what)}</p>\n'
        f'<div class="verdict {verdict}"><p><strong class="{verdict}">{verdict}</strong> &ensp;'
        f"{_sentence(result['meaning'])}</p></div>"
    )


def _findings(findings: list[dict]) -> str:
    items = [
        f'<li><b class="{found["verdict"]}">{found["verdict"]}</b> {_sentence(found["text"])} '
        f'<span class="dim">{_commands(_sentence(found["remedy"]))}</span></li>'
        for found in findings
    ]
    return f'<ul class="findings">{"".join(items)}</ul>' if items else ""


def _sentence(text: str) -> str:
    return escape(f"{text[:1].upper()}{text[1:]}.")


def _commands(text: str) -> str:
    """Sets commands in a text apart, so that they are not broken at their hyphens."""
    return re.sub(r"ddk [a-z]+(-[a-z]+)*( [A-Z]+)?( --[a-z]+(-[a-z]+)*)*", r"<code>\g<0></code>", text)


def _table(header: Iterable[str], rows: Iterable[str], numbers: Iterable[str] = ()) -> str:
    cells = "".join(f"<th{_number(name in numbers)}>{escape(name)}</th>" for name in header)
    body = "\n".join(rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _number(is_one: bool) -> str:
    return ' class="number"' if is_one else ""


# --- shortcuts -------------------------------------------------------------------------------------------------


def _shortcuts(result: dict) -> str:
    rows = list(_shortcut_rows(result))
    if not rows:
        return "<h2>Shortcuts</h2>\n<p>There is no labelled image to ask.</p>"
    header = ["shown to the classifier", "AUC", f"0.5 to 1, bounds {result['warn']:g} and {result['fail']:g}"]
    table = _table([*header, "", "carried by"], rows, numbers=["AUC"])
    return (
        "<h2>Shortcuts</h2>\n<p>How well a classifier that never sees a pixel tells one from the other: 0.5 is "
        f"chance, 1 is always. Asked of {result['sampled']:,} labelled images; the bar is the 95% interval. What the "
        f"files give away, a detector may learn in place of what fakes look like.</p>\n{table}"
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


def _side(side: dict, thumbnail: bytes | None) -> str:
    picture = '<span class="none">no picture</span>'
    if thumbnail:
        source = f"data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()}"
        picture = f'<img alt="" src="{source}">'
    where = " ".join(filter(None, (side["split"], side["label"])))
    return f"<div>{picture}<div>{escape(where)}<br>{escape(side['path'])}</div></div>"


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
    return _table(["split", "label", *names, "together"], rows, numbers=[*names, "together"])


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
    return _table(["label", *kinds], rows, numbers=kinds)


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
    return f"<h3>Sources</h3>\n{_table(['source', 'label', 'images'], rows, numbers=['images'])}{note}"


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
