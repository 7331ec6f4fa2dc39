"""Draws docs/timeline.svg from a trace that `loadline plan ... --trace FILE` wrote.

usage: python3 docs/timeline.py TRACE BUDGET_GIB TITLE > docs/timeline.svg
"""

import json
import sys

WIDTH, LEFT, RIGHT = 960, 84, 16
LANES = [("compute", "#2f6f9f"), ("h2d", "#d98a2b"), ("d2h", "#4f9d69"), ("disk", "#8a6fb0")]
LANE, STEP, MEMORY = 24, 34, 96


def merged(spans, gap):
    """Neighbours closer than a third of a pixel become one bar, so that the file stays small."""
    out = []
    for start, end in sorted(spans):
        if out and start - out[-1][1] <= gap:
            out[-1][1] = max(out[-1][1], end)
        else:
            out.append([start, end])
    return out


def text(x, y, content, extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{content}</text>'


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    budget, title = float(sys.argv[2]), sys.argv[3]
    names = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    slices = [e for e in events if e["ph"] == "X"]
    total = max(e["ts"] + e["dur"] for e in slices)
    scale = (WIDTH - LEFT - RIGHT) / total
    x = lambda ts: LEFT + ts * scale
    top, base = 44, 44 + STEP * len(LANES) + 18 + MEMORY
    height = base + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(LEFT, 24, title, 'font-size="14"'),
    ]
    for row, (name, colour) in enumerate(LANES):
        y = top + row * STEP
        spans = [(e["ts"], e["ts"] + e["dur"]) for e in slices if names[e["tid"]] == name]
        out.append(text(LEFT - 10, y + 16, name, 'text-anchor="end"'))
        out.append(f'<rect x="{LEFT}" y="{y}" width="{WIDTH - LEFT - RIGHT}" height="{LANE}" fill="#f2f2f2"/>')
        for start, end in merged(spans, 0.34 / scale):
            width = max((end - start) * scale, 0.6)
            out.append(f'<rect x="{x(start):.1f}" y="{y}" width="{width:.1f}" height="{LANE}" fill="{colour}"/>')
    most = budget * 1.12
    level = lambda gib: base - MEMORY * gib / most
    points = [f"M{x(0):.1f},{base}"]
    counters = [e for e in events if e["ph"] == "C"]
    for now, after in zip(counters, counters[1:] + [None]):
        y = level(sum(now["args"].values()) / 2**30)
        points.append(f"L{x(now['ts']):.1f},{y:.1f} L{x(after['ts'] if after else total):.1f},{y:.1f}")
    points.append(f"L{x(total):.1f},{base} Z")
    out.append(f'<path d="{" ".join(points)}" fill="#9fc3d9"/>')
    out.append(text(LEFT - 10, base - MEMORY / 2 + 4, "device", 'text-anchor="end"'))
    line = level(budget)
    out.append(f'<path d="M{LEFT},{line:.1f} H{WIDTH - RIGHT}" stroke="#b3261e" stroke-width="1.5" stroke-dasharray="6 3"/>')
    out.append(text(WIDTH - RIGHT, line - 5, f"the load line: {budget:g} GiB", 'text-anchor="end" fill="#b3261e"'))
    out.append(f'<path d="M{LEFT},{base} H{WIDTH - RIGHT}" stroke="#333"/>')
    for second in range(0, int(total / 1e6) + 1, 2):
        out.append(f'<path d="M{x(second * 1e6):.1f},{base} v5" stroke="#333"/>')
        out.append(text(x(second * 1e6), base + 20, f"{second} s", 'text-anchor="middle"'))
    out.append("</svg>")
    print("\n".join(out))


main()
