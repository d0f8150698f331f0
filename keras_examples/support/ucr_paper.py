"""Table 4 of Zhang et al. (2018), to stand beside our own figures."""

import numpy as np

COLUMNS = ("simple", "lstm", "ornn", "spectral")
NAMES = {
    "simple": "RNN",
    "lstm": "LSTM",
    "ornn": "oRNN",
    "spectral": "Spectral-RNN",
}
# The paper trains on the smaller part, which the archive of 2018 calls the test
# part.
SWAPPED = (
    "DistalPhalanxOutlineCorrect",
    "DistalPhalanxTW",
    "MiddlePhalanxOutlineCorrect",
)
# Accuracies of RNN, LSTM, oRNN, Spectral-RNN, and their numbers of parameters.
# Those of ECG200 and Lightning2 are the share of the larger class.
TABLE_4 = {
    "FiftyWords": (0.492, 0.598, 0.642, 0.651, 3058, 7218, 2426, 2850),
    "Adiac": (0.552, 0.706, 0.668, 0.726, 2694, 6950, 2062, 2486),
    "ArrowHead": (0.509, 0.537, 0.669, 0.800, 1219, 4515, 587, 1011),
    "Beef": (0.600, 0.700, 0.733, 0.733, 1606, 5766, 974, 1398),
    "BeetleFly": (0.950, 0.850, 0.900, 0.950, 1699, 6435, 1067, 1491),
    "CBF": (0.702, 0.967, 0.881, 0.948, 1476, 5444, 844, 1268),
    "Coffee": (1.000, 1.000, 1.000, 1.000, 1570, 6018, 938, 1362),
    "CricketX": (0.310, 0.456, 0.495, 0.500, 1997, 6637, 1365, 1789),
    "DistalPhalanxOutlineCorrect": (
        0.790,
        0.798,
        0.830,
        0.840,
        1410,
        5378,
        778,
        1202,
    ),
    "DistalPhalanxTW": (0.815, 0.795, 0.807, 0.815, 1641, 5609, 1009, 1433),
    "ECG200": (0.640, 0.640, 0.640, 0.640, 1410, 5378, 778, 1202),
    "ECG5000": (0.941, 0.936, 0.940, 0.945, 1606, 5766, 974, 1398),
    "ECGFiveDays": (0.947, 0.790, 0.976, 0.948, 1443, 5411, 811, 1235),
    "FaceAll": (0.549, 0.455, 0.714, 0.714, 1615, 4911, 983, 1407),
    "FaceFour": (0.625, 0.477, 0.511, 0.716, 1701, 6245, 1069, 1493),
    "FacesUCR": (0.449, 0.629, 0.710, 0.727, 1615, 4911, 983, 1407),
    "GunPoint": (0.947, 0.920, 0.953, 0.960, 1507, 5667, 875, 1299),
    "InsectWingbeatSound": (0.534, 0.515, 0.598, 0.586, 1996, 6732, 1364, 1788),
    "ItalyPowerDemand": (0.970, 0.969, 0.972, 0.973, 1315, 4899, 683, 1107),
    "Lightning2": (0.541, 0.541, 0.541, 0.541, 1570, 6018, 938, 1362),
    "MiddlePhalanxOutlineCorrect": (
        0.793,
        0.783,
        0.712,
        0.820,
        1410,
        5378,
        778,
        1202,
    ),
}


def table(rows, names, cells, choices):
    """Our accuracies beside the paper's, in Markdown.

    Args:
        rows: List of dicts of strings, the lines of `runs.csv`.
        names: List of names of sets.
        cells: List of names of cells.
        choices: Names of the values that validation chose.

    Returns:
        String. For each cell the mean over seeds (and the standard deviation of
        several), the paper's accuracy, both numbers of weights, and what was
        chosen. The last line has the means over the sets that the paper has.
    """
    chosen = ", ".join(name.replace("_", " ") for name in choices)
    head = " | ".join(
        f"{NAMES[cell]}: ours | paper | weights | {chosen}" for cell in cells
    )
    lines = [f"| set | {head} |", "|---" * (4 * len(cells) + 1) + "|"]
    means = {cell: [] for cell in cells}
    for name in names:
        columns = [name]
        for cell in cells:
            mine = [r for r in rows if (r["set"], r["cell"]) == (name, cell)]
            columns += _columns(mine, *_of_paper(name, cell))
            columns.append(", ".join(mine[0][c] for c in choices if mine))
            paper = _of_paper(name, cell)[0]
            if mine and paper is not None:
                mean = np.mean([float(r["accuracy"]) for r in mine])
                means[cell].append((mean, paper))
        lines.append("| " + " | ".join(columns) + " |")
    columns = ["**mean of the paper's sets**"]
    for cell in cells:
        ours, paper = np.mean(means[cell] or [(np.nan, np.nan)], axis=0)
        columns += [f"**{ours:.3f}**", f"**{paper:.3f}**", "", ""]
    lines.append("| " + " | ".join(columns) + " |")
    return "\n".join(lines) + "\n"


def _of_paper(name, cell):
    if name not in TABLE_4:
        return None, None
    place = COLUMNS.index(cell)
    return TABLE_4[name][place], TABLE_4[name][place + 4]


def _columns(mine, paper, weights):
    if not mine:
        return ["", "", ""]
    values = [float(row["accuracy"]) for row in mine]
    ours = f"{np.mean(values):.3f}"
    if len(values) > 1:
        ours += f" ({np.std(values, ddof=1):.3f})"
    counts = f"{mine[0]['weights']} / {weights or '-'}"
    return [ours, "-" if paper is None else f"{paper:.3f}", counts]
