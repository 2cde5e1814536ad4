"""Draws what benches/run measured: plot.py RESULTS SVG

Two rows of bars, each with its least and most: frame to JSON against what people write today, and amibus's throughput as a
part of the raw publisher's. What was not measured is left out.
"""
import json
import pathlib
import sys

WIDTH, LABEL, BAR, GAP = 720, 190, 18, 8
OURS, THEIRS, MARK = "#2f6f9f", "#b8c4cc", "#1b1b1b"
NAMES = {"event": "amibus: the whole CloudEvent", "data": "amibus: its data alone", "zero-copy": "naive zero-copy, serde_json",
         "map-and-value": "HashMap and serde_json::Value"}


def read(folder, name):
    path = pathlib.Path(folder) / name
    return json.loads(path.read_text()) if path.exists() else None


def charts(folder):
    micro, end = read(folder, "micro.json"), read(folder, "end.json")
    if micro:
        for recording in micro["recordings"]:
            bars = []
            for name, title in NAMES.items():
                nanos = recording["contenders"][name]["nanos_a_message"]
                per_second = [1e6 / nanos[part] for part in ("median", "max", "min")]
                bars.append((title, per_second, name in ("event", "data")))
            yield f"Frame to JSON, {recording['name']}: thousand messages a second of one core", bars, None
    if end:
        bars = [(bus["bus"], [bus["ratio"][part] for part in ("median", "min", "max")], True) for bus in end["buses"]]
        yield "Events through amibus, as a part of what the raw publisher does", bars, 1.0


def draw(folder):
    parts, y = [], 10
    for title, bars, line in charts(folder):
        most = max(high for _, (_, _, high), _ in bars)
        scale = (WIDTH - LABEL - 90) / max(most, line or 0)
        parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{title}</text>')
        y += 26
        top = y
        for name, (middle, low, high), ours in bars:
            middle_y = y + BAR / 2
            parts.append(f'<text x="{LABEL - 6}" y="{y + 13}" text-anchor="end">{name}</text>')
            parts.append(f'<rect x="{LABEL}" y="{y}" width="{middle * scale:.1f}" height="{BAR}" fill="{OURS if ours else THEIRS}"/>')
            parts.append(f'<line x1="{LABEL + low * scale:.1f}" x2="{LABEL + high * scale:.1f}" y1="{middle_y}" y2="{middle_y}" '
                         f'stroke="{MARK}"/>')
            figure = f"{middle:.2f}" if line else f"{middle:.0f}"
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
