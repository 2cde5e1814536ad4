"""Draws what benches/run measured: plot.py RESULTS SVG

Bars, each with its least and most: frame to JSON beside what people write today, amibus's throughput as a part of the raw
publisher's, and events for a second of processor time beside other people's clients. What was not measured is left out.
"""
import html
import json
import pathlib
import sys

WIDTH, LABEL, BAR, GAP = 760, 230, 18, 8
OURS, THEIRS, MARK = "#2f6f9f", "#b8c4cc", "#1b1b1b"
NAMES = {"event": "amibus: the whole CloudEvent", "data": "amibus: its data alone", "zero-copy": "naive zero-copy, serde_json",
         "map-and-value": "HashMap and serde_json::Value", "asterisk-rs": "asterisk-rs, serde_json"}
RECORDING = "load500-22"
PARTS = ("median", "min", "max")


def read(folder, name):
    path = pathlib.Path(folder) / name
    return json.loads(path.read_text()) if path.exists() else {}


def figures(folder, name, figure):
    """(row, [median, least, most]) of a figure that benches/end measured."""
    for row in read(folder, name).get("rows", []):
        found = row["figures"].get(figure)
        if found and None not in found.values():
            yield row["name"], [found[part] for part in PARTS]


def charts(folder):
    for recording in read(folder, "micro.json").get("recordings", []):
        if recording["name"] != RECORDING:
            continue
        bars = []
        for name, title in NAMES.items():
            if name not in recording["contenders"]:
                continue
            nanos = recording["contenders"][name]["nanos_a_message"]
            bars.append((title, [1e6 / nanos[part] for part in ("median", "max", "min")], name in ("event", "data")))
        yield f"Frame to JSON ({RECORDING}): thousand messages a second of one core", bars, None
    # The raw publisher is 1.
    parts = figures(folder, "throughput.json", "ratio")
    bars = [(name, values, True) for name, values in parts if not name.endswith(" raw")]
    if bars:
        yield "Asterisk's socket to a consumer, spool on: part of what the bus's own client publishes", bars, 1.0
    bars = [(name, [value / 1e3 for value in values], name.startswith("amibus"))
            for name, values in figures(folder, "peers.json", "events a CPU-second")]
    if bars:
        yield "Asterisk's socket to a bus: thousand events for a second of processor time", bars, None


def draw(folder):
    parts, y = [], 10
    for title, bars, line in charts(folder):
        most = max(high for _, (_, _, high), _ in bars)
        scale = (WIDTH - LABEL - 90) / max(most, line or 0)
        parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{html.escape(title)}</text>')
        y += 26
        top = y
        for name, (middle, low, high), ours in bars:
            middle_y = y + BAR / 2
            parts.append(f'<text x="{LABEL - 6}" y="{y + 13}" text-anchor="end">{html.escape(name)}</text>')
            parts.append(f'<rect x="{LABEL}" y="{y}" width="{middle * scale:.1f}" height="{BAR}" fill="{OURS if ours else THEIRS}"/>')
            parts.append(f'<line x1="{LABEL + low * scale:.1f}" x2="{LABEL + high * scale:.1f}" y1="{middle_y}" y2="{middle_y}" '
                         f'stroke="{MARK}"/>')
            figure = f"{middle:.2f}" if line else f"{middle:.0f}" if middle >= 10 else f"{middle:.1f}"
            parts.append(f'<text x="{LABEL + high * scale + 6:.1f}" y="{y + 13}">{figure}</text>')
            y += BAR + GAP
        if line:
            at = LABEL + line * scale
            parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{y - GAP}" stroke="{MARK}" stroke-dasharray="3"/>')
        y += 14
    style = 'font-family="sans-serif" font-size="12"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" {style}>\n'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")


if __name__ == "__main__":
    pathlib.Path(sys.argv[2]).write_text(draw(sys.argv[1]))
