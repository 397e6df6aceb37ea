"""Colours that readers can distinguish, and tables that escape what they show."""

import numpy as np

from probe.html import COLOURS, behaviour_colour, html_table


def test_a_table_escapes_every_part():
    found = html_table(["<h>", 2], [["a & b", None], [0.5, "x\n<y>"]], caption='"<c>"')
    assert found == (
        "<table><caption>&quot;&lt;c&gt;&quot;</caption><tr><th>&lt;h&gt;</th><th>2</th></tr>"
        "<tr><td>a &amp; b</td><td></td></tr><tr><td>0.5</td><td>x<br>&lt;y&gt;</td></tr></table>"
    )
    assert html_table([], []) == "<table></table>"


def test_colours_repeat_after_twenty():
    assert [behaviour_colour(i) for i in range(20)] == list(COLOURS)
    assert behaviour_colour(23) == behaviour_colour(3) != behaviour_colour(4)


def test_colours_can_be_seen_and_told_apart():
    """Relative luminance as WCAG has it; colour blindness as Machado et al. 2009 simulate it; distances in CIELAB."""
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (1.05 / (luminance + 0.05)).min() >= 3, "on white"
    near_black = ((0x17 / 255 + 0.055) / 1.055) ** 2.4
    assert ((luminance + 0.05) / (near_black + 0.05)).min() >= 3

    sights = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    for sight in sights:
        xyz = np.clip(linear @ np.asarray(sight).T, 0, 1) @ to_xyz.T / [0.95047, 1, 1.08883]
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1000 * np.eye(20)
        assert apart[:10, :10].min() >= (28 if sight is sights[0] else 19)
        assert apart.min() >= 10
